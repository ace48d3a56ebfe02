"""Training without torch.optim: the job changes its weights itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from compatibility.toys import classifier, loss_of
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm
from recorded import events, series
from torch import nn

UNSEEN = {
    "parameters": "weights change without a torch.optim optimizer: no parameter is looked at by itself",
    "learning_rate": "weights change without a torch.optim optimizer: the rate is a number of the job's own",
}


def in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=0.1)
    model.zero_grad()


def by_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.add_(parameter.grad.data, alpha=-0.1)
        parameter.grad.data.zero_()


@pytest.mark.setting(
    "SGD written by hand, also with micro-batches; given to `attach` without an optimizer",
    records=["loss", "gradient_norm", "batch_items", "backward_passes"],
    not_checked=UNSEEN,
)
@pytest.mark.parametrize("update", [in_place, by_data])
@pytest.mark.parametrize("micro", [1, 3])
def test_weights_changed_by_hand(trial: Trial, update: Callable[[nn.Module], None], micro: int) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        with watch(model):
            for step in range(5):
                total = 0.0
                for _ in range(micro):
                    loss = loss_of(model) / micro
                    loss.backward()
                    total += loss.item()
                truth.note(step, loss=total, gradient_norm=gradient_norm(model.parameters()))
                truth.note(step, batch_items=8 * micro, backward_passes=micro)
                update(model)
        return model

    trial.run(job)


SCRIPT = """
import json, sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
losses, norms = [], []
for step in range(8):
    x = torch.randn(8, 6)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    model.zero_grad()
    loss.backward()
    losses.append(loss.item())
    norms.append(float(sum(p.grad.double().pow(2).sum() for p in model.parameters()).sqrt()))
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(p.grad, alpha=0.1)
    model.eval()
    with torch.no_grad():
        model(x)
    model.train()
print(json.dumps({"loss": losses, "gradient_norm": norms, "weights": [p.tolist() for p in model.parameters()]}))
"""


def test_a_script_that_has_no_optimizer(tmp_path: Path) -> None:
    """As ``torchvitals run`` would watch it."""
    spec = find_spec("torchvitals.hooks")
    assert spec is not None
    assert spec.submodule_search_locations
    paths = [str(Path(spec.submodule_search_locations[0]) / "zero_code"), os.environ.get("PYTHONPATH", "")]
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TORCHVITALS_DIR": str(tmp_path / "runs"),
    }

    def run(**more: str) -> str:
        command = [sys.executable, "script.py"]
        done = subprocess.run(
            command, cwd=tmp_path, env={**environment, **more}, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, done.stderr
        assert "torchvitals" not in done.stderr
        return done.stdout

    bare, watched = run(), run(TORCHVITALS_RUN="by-hand")

    assert watched == bare
    told = json.loads(watched)
    for signal in ("loss", "gradient_norm"):
        assert list(series(tmp_path / "runs", signal).values()) == pytest.approx(told[signal], rel=1e-5)
    assert {event.details["what"] for event in events(tmp_path / "runs", "not_checked")} == set(UNSEEN)
    assert not events(tmp_path / "runs", "serving")
    assert [event.details["code"] for event in events(tmp_path / "runs", "exit")] == [0]
