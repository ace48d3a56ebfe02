"""A guard does what it was asked to, no more: after it, a training is the one that never saw the bad batch."""

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import events, series
from torch import nn
from torchvitals.agent.commands_run import GUARDS
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import BadStep, Guard, Monitor, NonFiniteStepError, attach
from torchvitals.hooks.guard import ACTIONS
from torchvitals.signals.reader import list_runs

NAN = float("nan")


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def batches(count: int = 20, *, bad: tuple[int, ...] = (7,)) -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(5)
    found = [torch.randn(8, 6, generator=made) for _ in range(count)]
    for index in bad:
        found[index][2, 3] = NAN
    return found


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adam_fused": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    loss = nn.functional.cross_entropy(model(x), x[:, :3].nan_to_num().argmax(1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def trained(seen: list[torch.Tensor], make: Callable[[Any], torch.optim.Optimizer]) -> tuple[Any, Any]:
    """Weights and optimizer state of a training without any of us."""
    model = net()
    optimizer = make(model.parameters())
    for x in seen:
        step(model, optimizer, x)
    return model.state_dict(), optimizer.state_dict()["state"]


def guarded(
    directory: Path, seen: list[torch.Tensor], make: Callable[[Any], torch.optim.Optimizer], guard: Any
) -> tuple[Any, Any]:
    model = net()
    optimizer = make(model.parameters())
    with attach(model, optimizer, directory=directory, guard=guard):
        for x in seen:
            step(model, optimizer, x)
    return model.state_dict(), optimizer.state_dict()["state"]


def assert_equal(found: Any, wanted: Any) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert_same(one, other)


def assert_same(one: Any, other: Any) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[key])
        else:
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[key])), key


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("bad", [(0,), (7, 8, 19)])
def test_after_a_skip_all_is_as_if_the_batch_had_never_come(tmp_path: Path, name: str, bad: tuple[int, ...]) -> None:
    """Weights, momenta, step counts and the running statistics of batch norm."""
    seen = batches(bad=bad)

    found = guarded(tmp_path, seen, OPTIMIZERS[name], "skip")

    assert_equal(found, trained([x for i, x in enumerate(seen) if i not in bad], OPTIMIZERS[name]))
    told = [(event.details["action"], event.details["at"]) for event in events(tmp_path, "guard")]
    assert told == [("skip", index) for index in bad]
    assert not events(tmp_path, "fuse")


class Average(nn.Module):
    """Keeps a running average as a buffer that is replaced at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        out: torch.Tensor = self.layer(x - self.mean)
        return out


def test_a_buffer_that_is_replaced_is_put_back_too(tmp_path: Path) -> None:
    def run(seen: list[torch.Tensor], guard: Any) -> dict[str, Any]:
        torch.manual_seed(0)
        model = Average()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitor = attach(model, optimizer, directory=tmp_path, guard=guard) if guard else None
        for x in seen:
            step(model, optimizer, x)
        if monitor is not None:
            monitor.detach()
        return model.state_dict()

    seen = batches(10, bad=(4,))

    assert_same(run(seen, "skip"), run([*seen[:4], *seen[5:]], None))


def test_on_good_steps_a_guard_changes_no_bit(tmp_path: Path) -> None:
    for guard in ("skip", "stop", "rollback"):
        found = guarded(tmp_path / guard, batches(bad=()), OPTIMIZERS["adamw"], guard)

        assert_equal(found, trained(batches(bad=()), OPTIMIZERS["adamw"]))
        assert not events(tmp_path / guard, "guard")


def test_a_rollback_goes_back_to_the_checkpoint(tmp_path: Path) -> None:
    """Checkpoints are of the state before steps 0, 5, 10: the bad step 12 takes 10 and 11 with it."""
    seen = batches(bad=(12,))

    found = guarded(tmp_path, seen, OPTIMIZERS["adamw"], Guard("rollback", every=5))

    # the checkpoint is taken in step 10, whose forward has moved the running statistics of batch norm already
    weights, state = trained([*seen[:10], *seen[13:]], OPTIMIZERS["adamw"])
    assert_same({k: v for k, v in found[0].items() if "running" not in k and "num_" not in k},
                {k: v for k, v in weights.items() if "running" not in k and "num_" not in k})  # fmt: skip
    assert_same(found[1], state)
    (event,) = events(tmp_path, "guard")
    assert (event.details["action"], event.details["at"], event.details["restored"]) == ("rollback", 12, 10)


def test_a_rollback_puts_schedule_and_generators_back(tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    drawn: list[tuple[float, float]] = []
    with attach(model, optimizer, directory=tmp_path, guard=Guard("rollback", every=4)):
        for index, x in enumerate(batches(7, bad=(6,))):
            step(model, optimizer, x)
            if index < 6:
                drawn.append((float(torch.rand(())), random.random()))
                schedule.step()

    assert schedule.last_epoch == 4
    assert optimizer.param_groups[0]["lr"] == 0.5**4
    assert (float(torch.rand(())), random.random()) == drawn[4]


def test_a_model_that_has_grown_since_is_skipped_over_not_broken(tmp_path: Path) -> None:
    model = nn.Linear(6, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with attach(model, optimizer, directory=tmp_path, guard=Guard("rollback", every=50)):
        for index, x in enumerate(batches(8, bad=(6,))):
            if index == 4:
                optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
            step(model, optimizer, x)

    assert [event.details["action"] for event in events(tmp_path, "guard")] == ["skip"]
    assert any("changed since the checkpoint" in event.details["why"] for event in events(tmp_path, "not_checked"))
    assert bool(torch.isfinite(model.weight).all())


def test_without_room_for_a_checkpoint_it_skips_and_says_so(tmp_path: Path) -> None:
    seen = batches(bad=(7,))

    found = guarded(tmp_path, seen, OPTIMIZERS["sgd"], Guard("rollback", largest=100))

    assert_equal(found, trained([*seen[:7], *seen[8:]], OPTIMIZERS["sgd"]))
    assert [event.details["action"] for event in events(tmp_path, "guard")] == ["skip"]
    assert "guard" in [event.details["what"] for event in events(tmp_path, "not_checked")]


def test_stop_raises_before_the_weights_are_touched(tmp_path: Path) -> None:
    model = net()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    monitor = attach(model, optimizer, directory=tmp_path, guard="stop")
    seen = batches(bad=(7,))
    for x in seen[:7]:
        step(model, optimizer, x)

    with pytest.raises(NonFiniteStepError, match="step 7 are not finite") as raised:
        step(model, optimizer, seen[7])
    monitor.detach()

    assert "0.weight" in str(raised.value)
    weights, state = trained(seen[:7], OPTIMIZERS["adamw"])
    assert_same({k: v for k, v in model.state_dict().items() if k.startswith(("0.", "3."))},
                {k: v for k, v in weights.items() if k.startswith(("0.", "3."))})  # fmt: skip
    assert_same(optimizer.state_dict()["state"], state)
    assert max(series(tmp_path, "tripwire_norm")) == 7, "the bad step itself is recorded"


def test_a_function_is_asked_and_obeyed(tmp_path: Path) -> None:
    asked: list[BadStep] = []

    def decide(bad: BadStep) -> str | None:
        asked.append(bad)
        return "skip" if bad.step == 3 else None

    found = guarded(tmp_path, batches(6, bad=(3, 5)), OPTIMIZERS["sgd"], decide)

    assert [(bad.step, bad.consecutive, len(bad.parameters)) for bad in asked] == [(3, 1, bad_of(asked)), (5, 1, 6)]
    assert asked[0].parameters[0] == "0.weight"
    assert [event.details["action"] for event in events(tmp_path, "guard")] == ["skip", "apply"]
    assert torch.isnan(found[0]["0.weight"]).any(), "the function let the second one through"


def bad_of(asked: list[BadStep]) -> int:
    return asked[0].of


def test_a_wrong_answer_and_a_wrong_word_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="skip, stop, rollback, or a function; it was given 'ignore'"):
        attach(net(), guard="ignore", directory=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="answered 'ignore'"):
        guarded(tmp_path, batches(3, bad=(1,)), OPTIMIZERS["sgd"], lambda _bad: "ignore")


def test_it_gives_up_when_every_step_is_bad(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteStepError, match="the 3th step in a row"):
        guarded(tmp_path, batches(bad=(4, 5, 6)), OPTIMIZERS["sgd"], Guard("skip", most=3))

    assert [event.details["action"] for event in events(tmp_path, "guard")] == ["skip", "skip", "stop"]


def test_of_accumulated_gradients_the_whole_step_is_left_out(tmp_path: Path) -> None:
    def accumulate(model: nn.Module, optimizer: torch.optim.Optimizer, seen: list[torch.Tensor]) -> None:
        for index, x in enumerate(seen):
            nn.functional.cross_entropy(model(x), x[:, :3].nan_to_num().argmax(1)).backward()
            if index % 2:
                optimizer.step()
                optimizer.zero_grad()

    seen = batches(12, bad=(6,))
    model = nn.Linear(6, 3)
    first = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with attach(model, optimizer, directory=tmp_path, guard="skip"):
        accumulate(model, optimizer, seen)
    found = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(first)
    accumulate(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), [*seen[:6], *seen[8:]])

    assert_same(found, model.state_dict())


def test_under_a_loss_scaler_the_scaler_skips_and_the_guard_stays_out(tmp_path: Path) -> None:
    def run(seen: list[torch.Tensor], guard: Any) -> Any:
        model = nn.Linear(6, 3)
        nn.init.constant_(model.weight, 0.1)
        nn.init.zeros_(model.bias)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        monitor: Monitor | None = attach(model, optimizer, directory=tmp_path, guard=guard) if guard else None
        for x in seen:
            optimizer.zero_grad()
            scaler.scale(nn.functional.mse_loss(model(x), torch.zeros(8, 3))).backward()
            scaler.step(optimizer)
            scaler.update()
        if monitor is not None:
            monitor.detach()
        return model.state_dict(), optimizer.state_dict()["state"], scaler.get_scale()

    found, bare = run(batches(), "rollback"), run(batches(), None)

    assert_equal(found[:2], bare[:2])
    assert found[2] == bare[2] == 4.0
    assert not events(tmp_path, "guard")


def test_after_detach_nothing_is_guarded(tmp_path: Path) -> None:
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    attach(model, optimizer, directory=tmp_path, guard="skip").detach()

    for x in batches(9):
        step(model, optimizer, x)

    assert not optimizer._optimizer_step_pre_hooks  # type: ignore[attr-defined]
    assert torch.isnan(model[0].weight).any()


def test_gradients_that_overflow_only_as_a_norm_are_let_through(tmp_path: Path) -> None:
    model = nn.Linear(4, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-38)
    with attach(model, optimizer, directory=tmp_path, guard="stop"):
        model.weight.grad = torch.full((1, 4), 3e38)
        optimizer.step()

    assert not events(tmp_path, "guard")


def test_a_gradient_that_only_the_guard_looks_at_is_an_incident_at_its_step(tmp_path: Path) -> None:
    """Far from the input and deep in a run of short steps, of which the monitor counts most."""
    model = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(model, optimizer, directory=tmp_path, guard="skip"):
        for index, x in enumerate(batches(300, bad=())):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            if index == 250:
                model[2].weight.grad[1, 1] = NAN  # type: ignore[index,union-attr]
            optimizer.step()

    (event,) = events(tmp_path, "guard")
    assert (event.details["at"], event.details["parameters"]) == (250, ["2.weight"])
    (run,) = tmp_path.iterdir()
    (incident,) = diagnose_directory(run).incidents
    assert (incident.kind, incident.first_step, incident.severity) == ("nonfinite", 250, "error")
    assert "left the step out" in incident.explanation
    assert bool(torch.isfinite(model[2].weight).all())


DDP = """
import torch, torch.distributed as dist
from torch import nn
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.parallel.DistributedDataParallel(nn.Linear(6, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
for step in range(12):
    x = torch.full((4, 6), 0.1 * step + dist.get_rank())
    if step == 7 and dist.get_rank() == 1:
        x[0, 0] = float("nan")
    optimizer.zero_grad()
    model(x).square().mean().backward()
    optimizer.step()
total = torch.cat([p.detach().flatten() for p in model.parameters()])
print("WEIGHTS", dist.get_rank(), total.double().sum().item(), flush=True)
dist.destroy_process_group()
"""


def test_ranks_act_alike_and_the_command_line_asks_for_it(tmp_path: Path) -> None:
    """One rank meets a NaN; both skip, and stay one model."""
    script = tmp_path / "script.py"
    script.write_text(DDP)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    watched = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--guard", "skip", "--dir", str(tmp_path / "runs")]
    done = subprocess.run(
        [*watched, *launcher, str(script)],
        capture_output=True, text=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    totals = {line.split()[2] for line in done.stdout.splitlines() if "WEIGHTS" in line}
    assert len(totals) == 1
    assert "nan" not in totals
    (listing,) = list_runs(tmp_path / "runs")
    found = [event.details for event in events(tmp_path / "runs", "guard")]
    assert [(each["action"], each["at"]) for each in found] == [("skip", 7)] * 2
    report = diagnose_directory(listing.path)
    (incident,) = report.incidents
    assert (incident.kind, incident.severity, incident.first_step) == ("nonfinite", "error", 7)
    assert "guard" in incident.explanation


def test_the_command_line_knows_the_same_words() -> None:
    assert GUARDS == ACTIONS
