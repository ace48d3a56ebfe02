"""Attached, a job computes bit for bit what it computes alone, and every signal equals its truth."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from recorded import events, profiles, records, series, steps
from torch import nn
from torchvitals.hooks import attach, gradients
from torchvitals.hooks.forwards import RootWatch
from torchvitals.hooks.memory import Memory


def net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Dropout(0.3), nn.Linear(16, 3))


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(8, 6)
    return x, x[:, :3].argmax(1)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, count: int, each: Callable[[torch.Tensor], None]) -> None:
    for _ in range(count):
        x, y = batch()
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        each(loss.detach())
        optimizer.step()


def total_norm(model: nn.Module) -> float:
    grads = [p.grad.double() for p in model.parameters() if p.grad is not None]
    return float(torch.sqrt(sum((g**2).sum() for g in grads)))  # type: ignore[arg-type]


def test_training_is_bit_equal_and_detach_leaves_no_hook(tmp_path: Path) -> None:
    def run(*, watched: bool) -> nn.Module:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        monitor = attach(model, optimizer, directory=tmp_path) if watched else None
        torch.manual_seed(1)
        train(model, optimizer, 30, lambda _: None)
        if monitor:
            monitor.detach()
            for module in model.modules():
                assert not module._forward_hooks
                assert not module._forward_pre_hooks
            assert not optimizer._optimizer_step_pre_hooks
            assert not optimizer._optimizer_step_post_hooks
        return model

    backward = torch.autograd.backward
    bare, watched = run(watched=False), run(watched=True)

    assert torch.autograd.backward is backward
    for mine, other in zip(bare.state_dict().values(), watched.state_dict().values(), strict=True):
        assert torch.equal(mine, other)


def test_loss_norm_and_rate_are_the_truth(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[4].parameters()}], lr=0.2
    )
    losses: list[float] = []
    norms: list[float] = []
    held = [p for group in optimizer.param_groups for p in group["params"]]

    def each(loss: torch.Tensor) -> None:
        losses.append(loss.item())
        norms.append(float(torch.sqrt(sum((p.grad.double() ** 2).sum() for p in held))))  # type: ignore[union-attr, arg-type, misc]

    with attach(model, optimizer, directory=tmp_path):
        train(model, optimizer, 12, each)

    assert list(series(tmp_path, "loss").values()) == pytest.approx(losses, rel=1e-6)
    recorded = series(tmp_path, "gradient_norm")
    assert recorded == pytest.approx({step: norms[step] for step in recorded}, rel=1e-5)
    assert len(recorded) == 12
    assert set(series(tmp_path, "learning_rate").values()) == {0.2}
    assert set(series(tmp_path, "batch_items").values()) == {8.0}
    assert set(list(series(tmp_path, "gradients_reset").values())[1:]) == {1.0}


def test_missing_zero_grad_is_seen(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(model, optimizer, directory=tmp_path):
        for _ in range(6):
            x, y = batch()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert list(series(tmp_path, "gradients_reset").values()) == [0.0] * 5


@pytest.mark.parametrize("to_none", [True, False])
def test_gradients_cleared_by_hand_count_as_cleared(tmp_path: Path, to_none: bool) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(model, optimizer, directory=tmp_path):
        for _ in range(4):
            for parameter in model.parameters():
                if to_none:
                    parameter.grad = None
                elif parameter.grad is not None:
                    parameter.grad.zero_()
            x, y = batch()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert set(series(tmp_path, "gradients_reset").values()) == {1.0}


def test_two_optimizers_keep_their_own_steps(tmp_path: Path) -> None:
    first, second = net(0), net(1)
    one = torch.optim.Adam(first.parameters(), lr=0.01)
    two = torch.optim.SGD(second.parameters(), lr=0.02)
    truth: dict[int, list[float]] = {0: [], 1: []}
    with attach([first, second], [one, two], directory=tmp_path):
        for _ in range(4):
            train(first, one, 2, lambda loss: truth[0].append(float(loss)))
            train(second, two, 1, lambda loss: truth[1].append(float(loss)))

    for index in (0, 1):
        assert list(series(tmp_path, "loss", index).values()) == pytest.approx(truth[index], rel=1e-6)


def test_update_and_weight_norms_are_the_truth(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = batch()
    with attach(model, optimizer, directory=tmp_path):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
    updates = [float((p.detach() - old).double().norm()) for p, old in zip(model.parameters(), before, strict=True)]
    weights = [float(p.detach().double().norm()) for p in model.parameters()]

    assert profiles(tmp_path, "parameter_update_norm")[0] == pytest.approx(updates, rel=1e-4)
    assert profiles(tmp_path, "parameter_weight_norm")[0] == pytest.approx(weights, rel=1e-5)


def test_log_adds_and_replaces(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path) as monitor:
        for step in range(3):
            x, y = batch()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            monitor.log(loss=torch.tensor(step * 1.0), reward=step * 2, note="words are no numbers")
            optimizer.step()

    assert series(tmp_path, "loss") == {0: 0.0, 1: 1.0, 2: 2.0}
    assert series(tmp_path, "reward") == {0: 0.0, 1: 2.0, 2: 4.0}
    assert not series(tmp_path, "note")


def test_evaluation_interrupts_timing_but_is_no_service(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path):
        train(model, optimizer, 3, lambda _: None)
        model.eval()
        with torch.no_grad():
            for _ in range(50):
                model(torch.randn(4, 6))
        model.train()
        train(model, optimizer, 2, lambda _: None)

    assert set(series(tmp_path, "step_seconds")) == {1, 2, 4}
    assert not events(tmp_path, "serving")


def test_a_trained_model_serves_after_two_hundred_requests_and_keeps_their_numbers(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path):
        train(model, optimizer, 3, lambda _: None)
        model.eval()
        with torch.no_grad():
            for _ in range(300):
                model(torch.randn(4, 6))

    assert len(events(tmp_path, "serving")) == 1
    from torchvitals.signals.records import Window

    windows = [record for record in records(tmp_path) if isinstance(record, Window)]
    assert [window.first for window in windows] == [200, 216, 232, 248, 264, 280]


def test_long_evaluations_by_hand_are_known_by_the_first_and_never_compared(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path):
        for answers in (300, 300, 700):
            train(model, optimizer, 2, lambda _: None)
            with torch.no_grad():
                for _ in range(answers):
                    model(torch.randn(4, 6))

    from torchvitals.signals.records import Window

    windows = [record for record in records(tmp_path) if isinstance(record, Window)]
    assert {window.axis: window.first for window in reversed(windows)} == {"feature:0": 200, "feature:1": 600}


def test_a_teacher_in_every_step_leaves_nothing_behind(tmp_path: Path) -> None:
    model, teacher = net(), net().eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach([model, teacher], optimizer, directory=tmp_path) as monitor:
        for _ in range(3):
            with torch.no_grad():
                target = teacher(torch.randn(4, 6))
            optimizer.zero_grad()
            loss = (model(torch.randn(4, 6)) - target).pow(2).mean()
            loss.backward()
            assert not monitor.observer.evaluations._services
            optimizer.step()


@pytest.mark.parametrize(("probe", "lost"), [("memory", "rss_bytes"), ("batch", "batch_items")])
def test_a_probe_that_fails_is_removed_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, probe: str, lost: str
) -> None:
    def breaks(*_: object) -> int:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(Memory, "rss_bytes", breaks)
    monkeypatch.setattr(RootWatch, "_read_batch", breaks)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path):
        train(model, optimizer, 4, lambda _: None)

    assert sorted(event.details["probe"] for event in events(tmp_path, "fuse")) == ["batch", "memory"]
    assert sum(f"the probe {probe!r} failed" in record.getMessage() for record in caplog.records) == 1
    assert not series(tmp_path, lost)
    assert len(series(tmp_path, "loss")) == 4


@pytest.mark.parametrize("given", ["model", 3, [], None])
def test_a_wrong_model_is_refused_in_one_line(given: object) -> None:
    with pytest.raises(TypeError, match=r"attach\(\) needs a torch.nn.Module as model"):
        attach(given)  # type: ignore[arg-type]


def test_clearing_that_cannot_be_seen_is_not_called_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "on_host", lambda _: False)  # as on a device: looking would wait
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(model, optimizer, directory=tmp_path):
        for _ in range(4):
            x, y = batch()
            optimizer.zero_grad(set_to_none=False)
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    assert not series(tmp_path, "gradients_reset")


def test_a_job_in_debt_looks_at_the_batch_when_the_loss_jumps(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with attach(model, optimizer, directory=tmp_path, overhead=0.0) as monitor:
        monitor.observer.recorder.budget.tokens = -1.0
        for step in range(60):
            x, y = batch()
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x * 1e4 if step == 55 else x), y).backward()
            optimizer.step()

    seen = series(tmp_path, "input_absmax")
    assert 55 in seen
    assert seen[55] > 1e4
    assert 54 not in seen


def test_a_compiled_model_without_a_length_is_watched(tmp_path: Path) -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x)

    model = torch.compile(Plain(), backend="eager")  # asked whether it is true, it asks for a length that is not there
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path):
        train(model, optimizer, 4, lambda _: None)

    assert [record.step for record in steps(tmp_path)] == [0, 1, 2, 3]


class Angle(nn.Module):
    """The angle of a cosine that rounding, or a slip, has taken beyond 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.acos(x.sigmoid() + 0.5)


def test_of_models_that_are_called_one_by_one_the_one_that_spoilt_the_loss_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    body, head = nn.Linear(6, 3), nn.Sequential(Angle(), nn.Linear(3, 3))
    optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.1)
    with attach([body, head], optimizer, directory=tmp_path):
        loss = nn.functional.cross_entropy(head(body(torch.randn(8, 6))), torch.arange(8) % 3)
        loss.backward()
        optimizer.step()

    (origin,) = events(tmp_path, "origin")
    assert origin.details["operation"].startswith("aten.acos")
    assert origin.details["phase"] == "forward"
