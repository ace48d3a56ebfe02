"""A monitor in trouble: the job computes the same, and nothing is raised."""

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from compatibility.toys import classifier, loss_of
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm
from recorded import series, steps
from servers import Agent
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks.recorder import Recorder

Trouble = Callable[[int], None]
"""Called before each step, of the watched run only."""

STEPS = 12
WHEN = 5
"""The step before which it happens."""


def job_in(trouble: Trouble) -> Callable[[Watch, Truth], object]:
    """A training with dropout and batch norm that ``trouble`` strikes."""

    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        with watch(model, optimizer) as monitor:
            for step in range(STEPS):
                if monitor is not None:
                    trouble(step)
                loss = loss_of(model)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model, optimizer

    return job


def only(found: dict[int, float], truth: Truth, signal: str) -> None:
    """What is left of a series is true."""
    assert found == pytest.approx({step: truth.scalars[0, signal][step] for step in found}, rel=1e-5)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """While ``full`` is set, every second write to a spool is refused and the others end half-way."""
    state = {"full": 0, "refused": 0}
    write = os.write

    def refuse(descriptor: int, data: bytes) -> int:
        spool = Path(f"/proc/self/fd/{descriptor}").resolve().suffix == ".spool"
        if not (spool and state["full"]):
            return write(descriptor, data)
        state["refused"] += 1
        if state["refused"] % 2:
            raise OSError(errno.ENOSPC, "no space left on device")
        return write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr(os, "write", refuse)
    return state


@pytest.mark.setting("the disk is full from the sixth step on", records=["loss", "gradient_norm"])
def test_a_disk_that_fills_up(trial: Trial, full_disk: dict[str, int]) -> None:
    def fill(step: int) -> None:
        full_disk["full"] = int(step >= WHEN)

    truth = trial.twice(job_in(fill), hardly=False)

    assert full_disk["refused"]
    assert set(series(trial.directory, "loss")) == set(range(WHEN))
    for signal in truth.signals:
        only(series(trial.directory, signal), truth, signal)
    trial.settle(truth.signals, trial.said())


@pytest.mark.setting("the run's directory is deleted during training; it is made anew within 256 records", records=[])
@pytest.mark.parametrize("what", ["run", "everything"])
def test_a_directory_that_is_deleted(trial: Trial, what: str) -> None:
    def delete(step: int) -> None:
        if step == WHEN:
            gone = trial.directory if what == "everything" else next(trial.directory.iterdir())
            shutil.rmtree(gone)

    trial.twice(job_in(delete), hardly=False)

    trial.settle(set(), {})


@pytest.mark.setting("the directory cannot be written to at all", records=[])
def test_a_directory_that_is_a_file(trial: Trial) -> None:
    trial.directory.write_text("in the way")

    trial.twice(job_in(lambda _: None), hardly=False)

    assert trial.directory.read_text() == "in the way"
    trial.settle(set(), {})


@pytest.mark.setting("the clock is set back by a day, then forward by a year", records=["loss", "gradient_norm"])
def test_a_clock_that_is_set(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    offset = {"seconds": 0.0}
    defaults: Any = Recorder.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "clock", lambda: time.time() + offset["seconds"])

    def turn(step: int) -> None:
        offset["seconds"] = {WHEN: -86_400.0, WHEN + 3: 3.2e7}.get(step, offset["seconds"])

    trial.run(job_in(turn))

    times = [record.time for record in steps(trial.directory)]
    assert min(times) < times[0] - 80_000 < times[-1] - 3e7
    report = diagnose_directory(next(trial.directory.iterdir()))
    assert report.incidents == []


@pytest.mark.setting("the agent is killed while it reads", records=["loss", "gradient_norm"])
def test_an_agent_that_is_killed(trial: Trial, tmp_path: Path) -> None:
    agents: list[Agent] = []

    def strike(step: int) -> None:
        if step == 1:
            agents.append(Agent(trial.directory))
        if step == WHEN:
            agents[0].kill()

    try:
        trial.run(job_in(strike))
    finally:
        for agent in agents:
            agent.end()


LIMITED = """
import resource, sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for step in range(40):
    if step == 10:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    x = torch.randn(8, 6)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(loss.item())
print([p.tolist() for p in model.parameters()])
"""


def run(tmp_path: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = tmp_path / "script.py"
    path.write_text(script)
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, cwd=tmp_path, env=env, timeout=250
    )


def test_a_file_size_limit_under_zero_code(tmp_path: Path) -> None:
    """``setrlimit`` does what a quota does: the write fails in the kernel, in a job that knows nothing of us."""
    spec = find_spec("torchvitals.hooks")
    assert spec is not None
    assert spec.submodule_search_locations
    paths = [str(Path(spec.submodule_search_locations[0]) / "zero_code"), os.environ.get("PYTHONPATH", "")]
    runs = str(tmp_path / "runs")

    bare = run(tmp_path, LIMITED)
    watched = run(
        tmp_path,
        LIMITED,
        PYTHONPATH=os.pathsep.join(filter(None, paths)),
        TORCHVITALS_RUN="limited",
        TORCHVITALS_DIR=runs,
    )

    assert (watched.returncode, watched.stdout) == (bare.returncode, bare.stdout) == (0, bare.stdout)
    assert len(bare.stdout.splitlines()) == 41
    assert "Traceback" not in watched.stderr
    assert "records were lost" in watched.stderr
