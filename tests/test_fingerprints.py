"""What lets two runs be compared: digests at the same steps in both, and what the numbers depend on."""

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from recorded import events, records, series
from torch import nn
from torchvitals.hooks import attach, generators
from torchvitals.hooks.digests import digest, digest_batch
from torchvitals.hooks.environment import describe_environment
from torchvitals.hooks.fingerprints import Fingerprints, due, next_due, per_doubling
from torchvitals.hooks.recorder import Recorder
from torchvitals.signals.records import Digest, unpack_integers


def train(directory: Path, steps: int = 70, overhead: float = 0.01) -> nn.Module:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=directory, overhead=overhead):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(4, 5)).square().mean().backward()
            optimizer.step()
    return model


def digests(directory: Path, kind: str) -> dict[int, list[int]]:
    return {
        record.step: unpack_integers(record.values).tolist()
        for record in records(directory)
        if isinstance(record, Digest) and record.kind == kind
    }


def test_the_steps_depend_on_nothing_but_their_number(tmp_path: Path) -> None:
    """Not on the budget, which differs from run to run."""
    train(tmp_path / "poor", overhead=1e-9)
    model = train(tmp_path / "rich", overhead=1.0)

    poor, rich = digests(tmp_path / "poor", "parameter"), digests(tmp_path / "rich", "parameter")
    assert poor == rich
    assert list(poor) == [-1, *range(33), *range(34, 65, 2), 68]
    assert digests(tmp_path / "poor", "final") == {69: digest([p.detach() for p in model.parameters()]).tolist()}
    assert series(tmp_path / "poor", "batch_digest") == series(tmp_path / "rich", "batch_digest")
    assert set(series(tmp_path / "poor", "batch_digest")) == set(poor) - {-1}
    assert digests(tmp_path / "poor", "generator").keys() == poor.keys()
    assert not digests(tmp_path / "poor", "gradient")


def test_every_step_where_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHVITALS_EXACT", "1")
    train(tmp_path)

    assert list(digests(tmp_path, "gradient")) == list(range(70))
    assert list(digests(tmp_path, "parameter")) == [-1, *range(70)]
    assert list(series(tmp_path, "batch_digest")) == list(range(70))
    assert not events(tmp_path, "fuse")


def test_the_share_of_digests_falls_with_the_length_of_the_run() -> None:
    for bytes_ in (1000, 10 << 20, 1 << 30):
        density = per_doubling(bytes_)
        counts = [sum(due(step, density) for step in range(2**k, 2 ** (k + 1))) for k in range(5, 11)]
        assert set(counts) == {density}
    assert sum(due(step) for step in range(1 << 20, 1 << 21)) == 1024, "but at least one in 1024 steps"


@pytest.mark.parametrize("density", [1, 4, 16])
def test_the_next_digest_is_the_first_step_that_is_due(density: int) -> None:
    for step in [*range(300), *range(4000, 4200), *range(70_000, 70_100)]:
        assert next_due(step, density) == next(later for later in range(step, step + 2000) if due(later, density))


def test_a_batch_that_lies_on_a_device_is_read_at_the_loader(tmp_path: Path) -> None:
    prints = Fingerprints(Recorder(tmp_path))
    here = torch.arange(12.0)

    prints.loaded((here,), 0)
    assert prints.batch(here.to("meta"), 0) is None, "only now is it known where the model gets its batches"
    prints.loaded({"x": here + 1}, 1)

    assert prints.batch(here.to("meta"), 1) == digest_batch(here + 1)


def test_a_generator_is_told_by_where_it_stands() -> None:
    def moved(draw: object) -> list[str]:
        before = generators.positions()
        draw()  # type: ignore[operator]
        return [name for name, same in zip(generators.NAMES, before == generators.positions(), strict=True) if not same]

    assert moved(lambda: None) == []
    assert moved(lambda: torch.rand(1)) == ["torch"]
    assert moved(random.random) == ["python"]
    assert moved(lambda: np.random.rand(1)) == ["numpy"]  # noqa: NPY002 (the global one)
    assert moved(lambda: torch.rand(1, generator=torch.Generator())) == []


def test_facts_say_what_the_numbers_depend_on(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    train(tmp_path, steps=2)

    facts = {key: value for event in events(tmp_path, "facts") for key, value in event.details.items()}
    assert facts["seeds"] == {"torch": 3}
    assert facts["flags"]["threads"] == threads
    assert facts["flags"]["deterministic_algorithms"] is False
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["numpy"] == np.__version__
    assert describe_environment({"PYTHONHASHSEED": "7", "SECRET": "x"})["flags"]["PYTHONHASHSEED"] == "7"
    assert "SECRET" not in describe_environment({"SECRET": "x"})["flags"]


SCRIPT = """
import json, sys
import helper, json.decoder
from torchvitals.hooks.code_facts import describe_code
print(json.dumps(describe_code()))
"""


def test_the_jobs_own_files_are_told_from_libraries(tmp_path: Path) -> None:
    import json

    def told() -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "code/train.py"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120
        )
        found: dict[str, object] = json.loads(done.stdout)
        return found

    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text(SCRIPT)
    (tmp_path / "code" / "helper.py").write_text("value = 1\n")
    git = tmp_path / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs\n{'b' * 40} refs/heads/main\n")

    first = told()
    (tmp_path / "code" / "helper.py").write_text("value = 2\n")
    (git / "refs" / "heads" / "main").write_text("c" * 40)
    second = told()

    assert first["script"] == "train.py"
    assert set(first["files"]) == set(second["files"]) == {"train.py", "helper.py"}  # type: ignore[call-overload]
    assert first["files"]["train.py"] == second["files"]["train.py"]  # type: ignore[index]
    assert first["files"]["helper.py"] != second["files"]["helper.py"]  # type: ignore[index]
    assert (first["commit"], second["commit"]) == ("b" * 12, "c" * 12)


def test_without_a_script_there_is_no_code_to_name_but_what_it_imports(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("")
    told = "from torchvitals.hooks.code_facts import describe_code as d; print(d()['script'], *d()['files'])"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); import helper; {told}"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip

    assert done.stdout == " helper.py\n"
