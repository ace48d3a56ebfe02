"""Several ranks: two real processes and gloo."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from compatibility.trial import EXACT, Trial
from servers import free_port
from torchvitals.agent.engine import Engine
from torchvitals.signals.reader import RunReader

WITH_COMPILED = {"activations": "the model is compiled: hooks would make torch.compile trace it again"}


class Played(NamedTuple):
    """All scenes of ``ranks.py``, as both ranks played them."""

    directory: Path

    def outcomes(self, scene: str) -> list[dict[str, Any]]:
        return [json.loads((self.directory / f"{scene}.{rank}.json").read_text()) for rank in (0, 1)]

    def engine(self, scene: str) -> Engine:
        """What the agent makes of the two ranks of a scene."""
        both = self.directory / f"{scene}.together"
        for rank in (0, 1):
            shutil.copytree(self.directory / f"{scene}.{rank}" / "together", both, dirs_exist_ok=True)
        engine = Engine("together")
        for entry in RunReader(both).read():
            engine.feed(entry)
        engine.finish()
        return engine


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Both ranks play every scene, once for all tests."""
    directory = tmp_path_factory.mktemp("ranks")
    tests = Path(__file__).parent.parent
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "TORCHVITALS_RUN": "together",
        "WORLD_SIZE": "2",
    }
    command = [sys.executable, "-m", "compatibility.ranks", str(directory)]
    ranks = [
        subprocess.Popen(command, env={**os.environ, **shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    try:
        errors = [rank.communicate(timeout=280)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return Played(directory)


def settle(trial: Trial, outcomes: list[dict[str, Any]]) -> None:
    """Both ranks found every signal right; what they claim to have proven is what the test's mark claims."""
    for outcome in outcomes:
        assert "failed" not in outcome, outcome["failed"]
        trial.settle(set(outcome["signals"]), outcome["said"])


@pytest.mark.setting("DDP", records=["loss", "gradient_norm", "parameter_gradient_norm", "batch_items"])
def test_ddp(trial: Trial, played: Played) -> None:
    """The norm is that of the averaged gradients: the same on all ranks."""
    settle(trial, played.outcomes("ddp"))


@pytest.mark.setting(
    "DDP: accumulation under `no_sync`, `gradient_as_bucket_view`, clipping",
    records=["loss", "gradient_norm", "gradient_norm_unclipped", "backward_passes", "no_sync_passes"],
)
def test_ddp_accumulates(trial: Trial, played: Played) -> None:
    settle(trial, played.outcomes("ddp_accumulating"))


@pytest.mark.setting(
    "DDP around a compiled model", records=["loss", "gradient_norm", "batch_items"], not_checked=WITH_COMPILED
)
def test_ddp_around_compiled(trial: Trial, played: Played) -> None:
    settle(trial, played.outcomes("ddp_compiled"))


@pytest.mark.setting(
    "FSDP2 (`fully_shard`): the parts of the norm by rank, the whole put together by the agent",
    records=["loss", "gradient_norm_shard", "batch_items"],
)
@pytest.mark.parametrize("scene", ["fsdp2", "fsdp2_in_bf16", "fsdp2_hybrid"])
def test_fsdp2(trial: Trial, played: Played, scene: str) -> None:
    """Uneven and empty shards, mixed precision, and hybrid sharding, where both ranks hold the same."""
    outcomes = played.outcomes(scene)
    settle(trial, outcomes)

    history = played.engine(scene).history
    assert len(outcomes[0]["whole"]) == 4
    for rank in (0, 1):
        assert history.series("gradient_norm", rank).values.tolist() == pytest.approx(outcomes[0]["whole"], rel=EXACT)


@pytest.mark.setting(
    "FSDP2 with clipping: the norm that `clip_grad_norm_` brings together",
    records=["loss", "gradient_norm", "gradient_norm_unclipped"],
)
def test_fsdp2_clipping(trial: Trial, played: Played) -> None:
    settle(trial, played.outcomes("fsdp2_clipping"))
