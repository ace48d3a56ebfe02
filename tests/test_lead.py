"""One number for each step of a job, whichever of its optimizers makes it; and a probe of counted steps that fails."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from recorded import events, records, steps
from torch import nn
from torchvitals.hooks import attach
from torchvitals.hooks.counted import CountedSteps
from torchvitals.hooks.lead import PHASE
from torchvitals.hooks.monitor import Monitor
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.unattended import watch_process
from torchvitals.signals.records import Step


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    monitor = watch_process(Recorder(tmp_path))
    yield monitor
    monitor.detach()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.randn(4, 6)).square().mean().backward()
        optimizer.step()


def told(directory: Path) -> list[tuple[int, int]]:
    """Optimizer and number of the job's steps, as written."""
    found = [record for number in range(8) for record in steps(directory, number) if record.counts]
    return [(record.optimizer, record.step) for record in sorted(found, key=lambda record: record.time)]


def test_an_optimizer_that_is_made_anew_for_the_same_weights_is_the_same(monitor: Monitor, tmp_path: Path) -> None:
    model = nn.Linear(6, 2)
    for _ in range(5):
        train(model, torch.optim.Adam(model.parameters()), 7)
    monitor.detach()

    assert told(tmp_path) == [(0, step) for step in range(35)]


def test_one_that_is_made_anew_is_asked_what_a_first_step_is_asked(monitor: Monitor, tmp_path: Path) -> None:
    model = nn.Linear(6, 2)
    optimizer = torch.optim.Adam(model.parameters())
    train(model, optimizer, 30)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path.parent / "last.pt")
    saved = torch.load(tmp_path.parent / "last.pt")
    optimizer = torch.optim.Adam(model.parameters())
    model.load_state_dict(saved["model"])
    train(model, optimizer, 5)
    monitor.detach()

    (relation,) = events(tmp_path, "relation")
    assert (relation.step, relation.details["relation"]) == (30, "optimizer_state_left_behind")


def test_weights_that_are_put_back_begin_anew_and_count_on(monitor: Monitor, tmp_path: Path) -> None:
    model = nn.Linear(6, 2)
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(3):
        model.load_state_dict(start)
        train(model, torch.optim.Adam(model.parameters()), 30)
    monitor.detach()

    assert told(tmp_path) == [(step // 30, step) for step in range(90)]


def test_one_for_other_weights_counts_on(monitor: Monitor, tmp_path: Path) -> None:
    body, head = nn.Linear(6, 6), nn.Linear(6, 2)
    model = nn.Sequential(body, head)
    first = torch.optim.SGD(head.parameters(), lr=0.1)
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, first, 50)
    train(model, second, 60)
    assert monitor.recorder.step == 110
    monitor.detach()

    assert [step for number, step in told(tmp_path) if number == 0] == list(range(50))
    assert [record.step for record in steps(tmp_path, 1)] == list(range(50, 110))
    assert [step for number, step in told(tmp_path) if number == 1] == list(range(50 + PHASE, 110))
    described = [event.details["optimizers"] for event in events(tmp_path, "facts") if "optimizers" in event.details]
    assert len(described[-1]) == 2


def test_of_a_gan_the_judge_leads_whose_weights_are_others(monitor: Monitor, tmp_path: Path) -> None:
    judge, generator = nn.Linear(6, 1), nn.Linear(6, 6)
    of_judge, of_generator = torch.optim.Adam(judge.parameters()), torch.optim.Adam(generator.parameters())
    for _ in range(12):
        train(judge, of_judge, 5)
        train(generator, of_generator, 1)
    monitor.detach()

    assert told(tmp_path) == [(0, step) for step in range(60)]
    assert [record.step for record in steps(tmp_path, 1)] == list(range(12))


def test_each_of_a_gan_that_is_made_anew_is_the_same(monitor: Monitor, tmp_path: Path) -> None:
    judge, generator = nn.Linear(6, 1), nn.Linear(6, 6)
    for _ in range(3):
        of_judge, of_generator = torch.optim.Adam(judge.parameters()), torch.optim.Adam(generator.parameters())
        for _ in range(15):
            train(judge, of_judge, 2)
            train(generator, of_generator, 1)
    monitor.detach()

    assert told(tmp_path) == [(0, step) for step in range(90)]
    assert [record.step for record in steps(tmp_path, 1)] == list(range(45))
    assert len(monitor.observer.optimizers) == 2


def test_an_optimizer_that_never_steps_leads_no_job(tmp_path: Path) -> None:
    model = nn.Linear(6, 2)
    idle = torch.optim.SGD([nn.Parameter(torch.ones(2))], lr=0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, [idle, optimizer], directory=tmp_path) as monitor:
        train(model, optimizer, PHASE + 5)
        assert monitor.recorder.step == PHASE + 5

    assert events(tmp_path, "facts")
    assert [record.step for record in steps(tmp_path, 1)] == list(range(PHASE + 5))


def test_the_end_of_an_optimizer_that_is_no_more_needs_no_digest(
    monitor: Monitor, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        model = nn.Linear(6, 2)
        train(model, torch.optim.SGD(model.parameters(), lr=0.1), 5)
    monitor.detach()

    assert not caplog.text
    assert {record.axis for record in records(tmp_path) if getattr(record, "kind", "") == "final"} == {"parameter:1"}


def test_what_the_job_has_let_go_of_is_not_kept_alive(monitor: Monitor) -> None:
    model = nn.Linear(6, 2)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 3)
    held = monitor.observer.optimizers[0]
    assert held.parameters
    model = nn.Linear(6, 2)
    train(model, torch.optim.SGD(model.parameters(), lr=0.1), 3)

    assert not held.parameters


def test_a_step_says_itself_whether_it_counts() -> None:
    assert Step(0, 0.0, {}).counts
    assert not Step(0, 0.0, {}, 1).counts
    assert Step(0, 0.0, {}, 1, leads=True).counts
    assert not Step(0, 0.0, {}, 0, leads=False).counts


@pytest.mark.parametrize("name", ["before_step", "after_step", "backward"])
def test_counted_steps_that_fail_become_watched_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> bool:
        raise ZeroDivisionError

    original: Callable[..., bool] = getattr(CountedSteps, name)
    calls: list[int] = []
    monkeypatch.setattr(CountedSteps, name, lambda *given: fails() if len(calls) > 90 else original(*given))
    monitor = watch_process(Recorder(tmp_path))
    monitor.recorder.budget.tokens, monitor.recorder.budget.overhead = -1.0, 0.0
    model = nn.Linear(6, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(200):
        calls.append(0)
        train(model, optimizer, 1)
    monitor.detach()

    assert "failed and was removed" in caplog.text
    assert {step for _, step in told(tmp_path)} >= set(range(200))
