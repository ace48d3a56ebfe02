"""Light steps: less is read where the gradient cannot fail alone, and what matters is found all the same."""

import itertools
from pathlib import Path

import pytest
import torch
from recorded import events, only_run, records, series
from test_counted import Roots, in_debt, train, watched_steps
from torch import nn
from torch.utils.data import DataLoader
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.bounded_gradients import MOST_NODES, bounded
from torchvitals.hooks.counted import LIGHT
from torchvitals.hooks.monitor import Monitor
from torchvitals.signals.records import Digest, Step

STEPS = 150


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def until_light(monitor: Monitor, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Train up to a light step that two more follow, some looks after the first; its number."""
    train(model, optimizer, 2 * STEPS)
    while monitor.observer.counted._rest < 3 or not monitor.observer.counted.light:
        train(model, optimizer, 1)
        assert monitor.recorder.step < 1000
    return monitor.recorder.step


def test_every_loss_is_kept_and_one_norm_of_sixteen(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        losses = train(model, optimizer, 600)

    assert list(series(tmp_path, "loss").values()) == pytest.approx(losses, rel=1e-6)
    norms = sorted(series(tmp_path, "tripwire_norm"))
    assert max(later - earlier for earlier, later in itertools.pairwise(norms)) == LIGHT + 1
    assert set(watched_steps(tmp_path)) <= set(norms)


def test_training_is_bit_equal(tmp_path: Path) -> None:
    def run(directory: Path | None) -> list[torch.Tensor]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        monitor = in_debt(attach(model, optimizer, directory=directory)) if directory else None
        torch.manual_seed(1)
        train(model, optimizer, STEPS)
        if monitor:
            assert monitor.observer.counted._light
            monitor.detach()
        return list(model.parameters())

    assert all(map(torch.equal, run(None), run(tmp_path)))


def test_a_loss_that_can_fail_in_backward_alone_has_no_light_steps(tmp_path: Path) -> None:
    model = Roots()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        train(model, optimizer, STEPS)

    assert len(series(tmp_path, "tripwire_norm")) == STEPS


def test_a_gradient_hook_and_a_graph_too_large_are_not_bounded() -> None:
    model = net()
    loss = model(torch.randn(8, 6)).mean()
    assert bounded(loss)
    handle = model[0].weight.register_hook(lambda gradient: gradient * 2)
    assert not bounded(loss)
    handle.remove()
    assert bounded(loss)
    for _ in range(MOST_NODES):
        loss = loss + 1
    assert not bounded(loss)
    assert not bounded(None)


def test_a_graph_that_was_freed_is_not_bounded() -> None:
    weight = torch.ones(2, requires_grad=True)
    loss = (weight * 2 / 3).mean()
    loss.backward()
    assert not bounded(loss)


def test_a_nan_in_the_batch_of_a_light_step_is_found_there(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        x = torch.randn(8, 6)
        x[3, 2] = float("nan")
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()
        optimizer.step()

    (origin,) = events(tmp_path, "origin")
    assert origin.step == step
    assert origin.details["operation"] == "batch"


def test_where_no_hook_hears_the_forward_end_the_loss_is_still_told_from_the_model(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        assert not model._forward_hooks
        optimizer.zero_grad()
        answer = model(torch.randn(8, 6))
        (answer - answer.detach()).exp().log().sub(1.0).log().mean().backward()  # the loss
        optimizer.step()

    (origin,) = events(tmp_path, "origin")
    assert origin.step == step
    assert origin.details["phase"] == "loss"
    assert origin.details["code"].endswith("# the loss")


def test_a_forward_that_does_not_always_make_the_same_graph_is_heard_to_end(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(4)])
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            for layer in self.layers[: 1 + self.calls % 4]:
                x = layer(x).relu()
            return x

    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        train(model, optimizer, STEPS)
        while monitor.observer.counted.left < 2:
            train(model, optimizer, 1)
        train(model, optimizer, 1)
        assert monitor.observer.counted.left
        assert model._forward_hooks


@pytest.mark.parametrize("behind_autograd", [False, True])
def test_a_jump_of_the_loss_is_watched_in_the_step_it_happens_with_what_wrote_to_the_weights(
    tmp_path: Path, behind_autograd: bool
) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        with torch.no_grad():
            for parameter in model.parameters():
                (parameter.data if behind_autograd else parameter).mul_(100)
        train(model, optimizer, 1)

    assert step in watched_steps(tmp_path)
    assert series(tmp_path, "weights_overwritten") == {step: 1.0}


def test_weights_that_are_drawn_anew_are_told_though_the_loss_hardly_rises(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        for parameter in model.parameters():
            parameter.data.normal_(std=0.5)
        train(model, optimizer, 1)
        assert monitor.observer.counted.left  # no jump

    assert series(tmp_path, "weights_overwritten") == {step: 1.0}


def test_nobody_is_told_to_have_written_to_weights_that_only_the_steps_moved(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)):
        train(model, optimizer, 600)

    assert not series(tmp_path, "weights_overwritten")


def test_each_step_tells_how_long_it_took_and_waited(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = DataLoader(torch.randn(8 * 400, 6), 8)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        for x in loader:
            optimizer.zero_grad()
            model(x).pow(2).mean().backward()
            optimizer.step()
        assert monitor.observer.counted._light

    taken, waited = series(tmp_path, "step_seconds"), series(tmp_path, "data_seconds")
    assert set(taken) == set(waited) - {0} == set(range(1, 400))
    assert all(0 < waited[step] < seconds for step, seconds in taken.items())


def test_what_the_job_logs_and_a_new_rate_are_kept_at_every_step(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        optimizer.param_groups[0]["lr"] = 0.02
        monitor.log(reward=7.0)
        train(model, optimizer, 3)

    assert series(tmp_path, "reward") == {step: 7.0}
    assert series(tmp_path, "learning_rate")[step] == 0.02


def test_an_evaluation_is_dated_by_the_step_that_ends_it(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        with torch.no_grad():
            model.eval()
            nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.zeros(8, dtype=torch.long))
            model.train()
        train(model, optimizer, 20)

    assert set(range(step + 20)) - set(series(tmp_path, "step_seconds")) == {0, step}
    assert step in series(tmp_path, "tripwire_norm")  # no light step


def test_an_optimizer_that_is_made_among_light_steps_is_watched_from_its_first_one(tmp_path: Path) -> None:
    model, other = net(), net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        monitor.install()  # on every optimizer of the process
        train(other, torch.optim.SGD(other.parameters(), lr=0.01), 2)

    # the job has turned to another model: its steps are counted on
    second = [record.step for record in records(tmp_path) if isinstance(record, Step) and record.optimizer == 1]
    assert second == [step, step + 1]


def test_looks_wait_for_a_digest_that_is_due_soon_after(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        monitor.recorder.budget.steps_to_count = lambda: 100  # type: ignore[method-assign]
        train(model, optimizer, 2600)

    # from step 2,048 on there is a digest every 128 steps: each is a look, and there is none between them
    assert [step for step in watched_steps(tmp_path) if step >= 2048] == list(range(2048, 2600, 128))


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.AdamW])
def test_digests_are_those_of_a_run_that_is_watched_throughout(
    tmp_path: Path, optimizer_class: type[torch.optim.Optimizer]
) -> None:
    def run(directory: Path, *, light: bool) -> dict[tuple[int, str, str], bytes]:
        model = net()
        optimizer = optimizer_class(model.parameters(), lr=0.01)
        torch.manual_seed(1)
        with attach(model, optimizer, directory=directory) as monitor:
            if light:
                in_debt(monitor)
            train(model, optimizer, 600)
        return {(r.step, r.axis, r.kind): r.values for r in records(directory) if isinstance(r, Digest)}

    watched, light = run(tmp_path / "watched", light=False), run(tmp_path / "light", light=True)
    assert watched == light
    assert series(tmp_path / "watched", "batch_digest") == series(tmp_path / "light", "batch_digest")


def test_a_gradient_spoilt_in_a_light_step_is_dated_by_that_step(tmp_path: Path) -> None:
    """Nobody read it: the weights tell in the next step, whose own operations are not to blame."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        step = until_light(monitor, model, optimizer)
        x = torch.randn(8, 6)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(float("nan"))
        optimizer.step()
        train(model, optimizer, 1)

    (incident,) = diagnose_directory(only_run(tmp_path)).incidents
    assert (incident.kind, incident.cause, incident.first_step) == ("nonfinite", "numerical_domain_error", step)
    assert "TORCHVITALS_OVERHEAD=1" in incident.remedy


def test_a_loss_on_a_device_is_not_waited_for(tmp_path: Path) -> None:
    class Elsewhere(torch.Tensor):
        is_cpu = False  # type: ignore[assignment]

        def item(self) -> float:
            raise AssertionError("the host would wait for the device")

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with in_debt(attach(model, optimizer, directory=tmp_path)) as monitor:
        until_light(monitor, model, optimizer)
        counted = monitor.observer.counted
        loss = nn.functional.cross_entropy(model(torch.randn(8, 6)), torch.zeros(8, dtype=torch.long))
        assert not counted.backward((loss.as_subclass(Elsewhere),), {})
        assert not counted.left  # the step is a watched one
