"""Steps that are only counted: nothing a failure is explained by gets lost, and what is unusual is watched at once."""

import itertools
import math
import threading
from pathlib import Path

import pytest
import torch
from recorded import events, series, steps
from torch import nn
from torch.utils.data import DataLoader
from torchvitals.hooks import attach
from torchvitals.hooks.budget import MOST_COUNTED
from torchvitals.hooks.monitor import Monitor

STEPS = 150


class Roots(nn.Module):
    """A net that takes the square root of what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16)
        self.last = nn.Linear(16, 3)
        self.shift = 10.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.sqrt(self.first(x) + self.shift))  # root


def in_debt(monitor: Monitor) -> Monitor:
    """As in a job whose steps are too short: nothing was left of the allowance, and steps earn nothing."""
    monitor.recorder.budget.tokens = -1.0
    monitor.recorder.budget.overhead = 0.0
    return monitor


def train(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, each: object = None) -> list[float]:
    losses = []
    for step in range(count):
        if callable(each):
            each(step)
        x = torch.randn(8, 6)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def watched_steps(directory: Path) -> list[int]:
    return list(series(directory, "overhead_ratio"))


def test_each_step_keeps_its_loss_and_its_norm_and_few_are_watched(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        losses = train(model, optimizer, 400)
        assert monitor.recorder.step == 400

    assert [record.step for record in steps(tmp_path)] == list(range(400))
    assert list(series(tmp_path, "loss").values()) == pytest.approx(losses, rel=1e-6)
    assert len(series(tmp_path, "tripwire_norm")) == 400
    assert len(watched_steps(tmp_path)) < 150
    times = [record.time for record in steps(tmp_path)]
    assert times == sorted(times)


def test_training_is_bit_equal(tmp_path: Path) -> None:
    def run(directory: Path | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.5), nn.Linear(16, 3))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        monitor = in_debt(attach(model, optimizer, directory=directory)) if directory else None
        torch.manual_seed(1)
        train(model, optimizer, STEPS)
        if monitor:
            monitor.detach()
        return list(model.parameters())

    assert all(map(torch.equal, run(None), run(tmp_path)))


@pytest.mark.parametrize("shift", [-1e6, -10.0], ids=["forward", "and so the loss"])
def test_a_nan_in_a_counted_step_is_traced_to_its_operation(tmp_path: Path, shift: float) -> None:
    torch.manual_seed(0)
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        counted = []

        def breaks(step: int) -> None:
            if step == STEPS:
                counted.append(monitor.observer.counted.left)
                model.shift = shift

        train(model, optimizer, STEPS + 1, breaks)

    assert counted[0] > 0
    (origin,) = events(tmp_path, "origin")
    assert origin.step == STEPS
    assert origin.details["operation"].startswith("aten.sqrt")
    assert "test_counted.py" in origin.details["line"]
    assert STEPS in watched_steps(tmp_path)


class BadBackward(torch.autograd.Function):
    """Identity whose gradient is NaN when told so."""

    broken = False

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 1.0

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * (float("nan") if BadBackward.broken else 1.0)


def test_a_nan_born_in_backward_is_seen_before_it_is_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(Roots):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(BadBackward.apply(self.first(x)))

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        train(model, optimizer, STEPS)
        monkeypatch.setattr(BadBackward, "broken", True)
        train(model, optimizer, 1)

    (origin,) = events(tmp_path, "origin")
    assert origin.step == STEPS
    assert origin.details["phase"] == "backward"
    assert math.isnan(series(tmp_path, "tripwire_norm")[STEPS])


def test_a_jump_is_watched_in_the_step_it_happens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        train(model, optimizer, STEPS)
        assert monitor.observer.counted.left > 0
        with torch.no_grad():
            model.last.weight.mul_(1e4)
        train(model, optimizer, 3)

    assert {STEPS, STEPS + 1, STEPS + 2} <= set(watched_steps(tmp_path))
    assert series(tmp_path, "loss")[STEPS] > 100


def test_a_clipping_now_and_then_is_watched_in_the_step_it_happens(tmp_path: Path) -> None:
    """One that comes in every step needs no look of its own."""
    watched = []
    for name, first in (("rarely", STEPS), ("always", 0)):
        torch.manual_seed(0)
        model = Roots()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with in_debt(attach(model, optimizer, directory=tmp_path / name)):
            for step in range(STEPS + 1):
                x = torch.randn(8, 6)
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
                if step >= first:
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
        watched.append(watched_steps(tmp_path / name))

    assert STEPS in series(tmp_path / "rarely", "gradient_norm_unclipped")
    assert len(watched[1]) < len(watched[0]) + 5


def test_each_step_tells_how_long_it_took_and_waited_but_for_those_after_an_evaluation(tmp_path: Path) -> None:
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(torch.randn(8 * STEPS, 6), 8)
    evaluated = set(range(9, STEPS, 10))
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        for step, x in enumerate(loader):
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()
            if step + 1 in evaluated:
                with torch.no_grad():
                    model(x)

    taken, waited = series(tmp_path, "step_seconds"), series(tmp_path, "data_seconds")
    assert set(taken) == set(range(1, STEPS)) - evaluated
    assert set(waited) >= set(taken)
    assert all(0 < waited[step] < seconds for step, seconds in taken.items())


def test_what_the_job_logs_is_kept_at_every_step(tmp_path: Path) -> None:
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        train(model, optimizer, STEPS, lambda step: monitor.log(reward=step))

    assert series(tmp_path, "reward") == {step: float(step) for step in range(STEPS)}


def test_two_optimizers_are_counted_each_for_itself(tmp_path: Path) -> None:
    torch.manual_seed(0)
    models = [Roots(), Roots()]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in models]
    with in_debt(attach(models, optimizers, directory=tmp_path)):
        for _ in range(STEPS):
            for model, optimizer in zip(models, optimizers, strict=True):
                train(model, optimizer, 1)

    for index in range(2):
        own = [record.step for record in steps(tmp_path, index)]
        assert own == list(range(STEPS))


def test_accumulation_adds_the_losses_up_as_in_a_watched_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sums = []
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        for _ in range(STEPS):
            optimizer.zero_grad()
            parts = [model(torch.randn(4, 6)).pow(2).mean() / 3 for _ in range(3)]
            for part in parts:
                part.backward()
            optimizer.step()
            sums.append(sum(part.item() for part in parts))

    assert list(series(tmp_path, "loss").values()) == pytest.approx(sums, rel=1e-5)


def test_a_beat_brings_what_is_kept(tmp_path: Path) -> None:
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        train(model, optimizer, 100)
        while not monitor.recorder.kept:
            train(model, optimizer, 1)
        beats = threading.Thread(target=monitor.observer.beat.beat)
        beats.start()
        beats.join()
        assert not monitor.recorder.kept
        assert len(steps(tmp_path)) == monitor.recorder.step


def test_no_more_than_so_many_steps_lie_between_two_watched_ones(tmp_path: Path) -> None:
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        train(model, optimizer, 3 * STEPS)

    watched = watched_steps(tmp_path)
    assert max(later - earlier for earlier, later in itertools.pairwise(watched)) <= MOST_COUNTED + 1


def test_an_abandoned_loss_is_found_in_counted_steps_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        train(model, optimizer, STEPS)
        assert monitor.observer.counted.left > 1
        model.shift = -1e6
        loss = model(torch.randn(8, 6)).sum()
        if torch.isfinite(loss):
            loss.backward()
        train(model, optimizer, 1)

    (origin,) = events(tmp_path, "origin")
    assert origin.details["operation"].startswith("aten.sqrt")


def test_with_a_closure_the_origin_is_looked_for_before_the_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Net(Roots):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(BadBackward.apply(self.first(x)))

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = model(torch.randn(8, 6)).pow(2).mean()
        loss.backward()
        return loss

    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        for _ in range(40):
            optimizer.step(closure)
            assert not monitor.observer.counted.left  # nothing could be read in time
        monkeypatch.setattr(BadBackward, "broken", True)
        optimizer.step(closure)

    (origin,) = events(tmp_path, "origin")
    assert origin.step == 40
    assert origin.details["phase"] == "backward"
    assert "BadBackward.broken" in origin.details["code"]


def test_a_learning_rate_that_changes_is_known_to_the_step(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = 0.02 if step >= 77 else 0.01
            train(model, optimizer, 1)
    rates, counted = series(tmp_path, "learning_rate"), set(range(STEPS)) - set(watched_steps(tmp_path))

    assert 77 in counted
    assert rates[77] == 0.02
    assert {rate for step, rate in rates.items() if step < 77} == {0.01}
