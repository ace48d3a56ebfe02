"""Steps that are run again: what adds in no fixed order is named, what is in order is let alone."""

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import events
from torch import nn
from torchvitals.agent.cli import main
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.calls import Call
from torchvitals.hooks.repeats import Operations, _listed_by_torch, _run

LOOKUP = """
import torch
from torch import nn
torch.set_num_threads(4)
torch.manual_seed(0)
class Biased(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 64), nn.Linear(64, 4)
        self.table = nn.Parameter(torch.zeros(32, 64))
        self.register_buffer("index", torch.randint(0, 32, (4096,)))
    def forward(self, x):
        h = self.first(x)
        h = h + self.table[self.index]
        return self.last(h.relu())
model = Biased()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(12):
    x = torch.randn(4096, 16)
    loss = model(x).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("trained")
"""


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHVITALS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


class Own(nn.Module):
    """Adds noise from wherever ``draw`` takes it."""

    def __init__(self, draw: Any) -> None:
        super().__init__()
        self.layer, self.drop, self.draw = nn.Linear(4, 2), nn.Dropout(0.5), draw

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.drop(self.layer(x)) + self.draw()
        return out


def trained(directory: Path, monkeypatch: pytest.MonkeyPatch, draw: Any, steps: int = 6) -> Any:
    monkeypatch.setenv("TORCHVITALS_EXACT", "1")
    torch.manual_seed(0)
    model = Own(draw)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer):
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(8, 4)).square().mean().backward()
            optimizer.step()
    (run,) = directory.iterdir()
    return model, diagnose_directory(run)


def test_what_is_in_order_is_checked_and_silent(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, Python's and numpy's random are put back before each run."""
    _, report = trained(directory, monkeypatch, lambda: random.random() + torch.rand(1))

    assert [i for i in report.incidents if i.kind == "nondeterminism"] == []
    assert "nondeterminism" in report.checked
    assert [event.details["at"] for event in events(directory, "repeat")] == [0, 1, 2, 4]
    assert not events(directory, "fuse")


def test_without_being_asked_no_step_is_run_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest.MonkeyPatch, "setenv", lambda *_: None)
    _, report = trained(directory, monkeypatch, lambda: 0.0)

    assert not events(directory, "repeat")
    (why,) = [item.why for item in report.not_checked if item.what == "nondeterminism"]
    assert "--exact" in why


def test_looking_changes_no_bit(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = trained(directory, monkeypatch, lambda: torch.rand(1))
    torch.manual_seed(0)
    model = Own(lambda: torch.rand(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()

    assert torch.equal(found.layer.weight, model.layer.weight)
    assert not torch.are_deterministic_algorithms_enabled()


def test_numbers_from_elsewhere_are_told_from_unordered_operations(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = random.SystemRandom()
    _, report = trained(directory, monkeypatch, lambda: torch.tensor(system.random()))

    (incident,) = [i for i in report.incidents if i.kind == "nondeterminism"]
    assert (incident.cause, incident.first_step) == ("unseeded_generator", 0)
    assert "test_nondeterminism.py" in incident.where


def test_a_generator_of_the_jobs_own_is_told(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = torch.Generator()
    _, report = trained(directory, monkeypatch, lambda: torch.rand(1, generator=own))

    (incident,) = [i for i in report.incidents if i.kind == "nondeterminism"]
    assert incident.cause == "unseeded_generator"
    assert "aten.rand" in incident.explanation


def test_torch_is_asked_for_its_list() -> None:
    class Puts(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.clone().put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))

    model = Puts()
    model.register_parameter("weight", nn.Parameter(torch.zeros(1)))
    x = torch.zeros(4, requires_grad=True)
    call = Call(model.weight, (x,), {}, 1 << 20)

    listed = _listed_by_torch(model, call, float("inf"))

    assert listed == ["put_"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_after_the_deadline_operations_run_unseen() -> None:
    model = nn.Linear(3, 2)
    call = Call(model.weight, (torch.zeros(1, 3),), {}, 1 << 20)

    operations = _run(model, call, 0.0)

    assert isinstance(operations, Operations)
    assert (operations.late, operations.done) == (True, [])


@pytest.fixture
def lookup(tmp_path: Path) -> Path:
    """A real race: the backward of a table lookup on a CPU adds with several threads in the order they come."""
    script = tmp_path / "lookup.py"
    script.write_text(LOOKUP)
    return script


def test_a_run_and_its_replay_name_the_operation(
    directory: Path, lookup: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(lookup.parent)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    done = subprocess.run(
        [sys.executable, "-m", "torchvitals.agent.cli", "run", "--quiet", sys.executable, "lookup.py"],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    assert main(["compare", "lookup", "--replay", "--json"]) == 0

    out, err = capfd.readouterr()
    assert "trained" in err, "what the command prints is not in the way of the JSON"
    told = json.loads(out)
    assert told["b"]["name"] == "lookup-replay"
    (replayed,) = [path for path in directory.iterdir() if "replay" in path.name]
    (incident,) = [i for i in diagnose_directory(replayed).incidents if i.kind == "nondeterminism"]
    assert (incident.cause, incident.where) == ("nondeterministic_operation", "lookup.py:14")
    assert "self.table[self.index]" in incident.explanation
    # Two runs may come out alike by luck, hardly twelve steps of them.
    assert told["verdict"] == "diverged"
    divergence = told["divergence"]
    assert (divergence["kind"], divergence["cause"]) == ("nondeterminism", "nondeterministic_operation")
    assert "lookup.py:14" in divergence["causes"][0]["evidence"][0]


def test_a_replay_needs_a_command(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(directory, monkeypatch, lambda: 0.0, steps=2)
    (run,) = directory.iterdir()

    for words, told in (
        ([run.name, "--replay"], "not started by torchvitals run"),
        ([run.name], "Give two runs"),
        ([run.name, run.name, "--replay"], "Give two runs"),
    ):
        assert main(["compare", *words]) == 2
        assert told in capsys.readouterr().err


def test_memory_that_nobody_has_written_to_is_no_input(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two halves of a buffer filled one after the other: what the second write finds there is nobody's number."""

    def halves() -> torch.Tensor:
        made = torch.empty(8, 2)
        made[:4] = 1.0
        made[4:].uniform_()
        return made

    _, report = trained(directory, monkeypatch, halves)

    assert [i for i in report.incidents if i.kind == "nondeterminism"] == []
    assert "nondeterminism" in report.checked
