"""Optimizers, their variants, and who wraps them."""

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from compatibility.toys import batch, classifier, loss_of, perceptron
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from recorded import profiles
from torch import nn
from torch.optim import Optimizer

Make = Callable[[Iterable[torch.Tensor]], Optimizer]

EVERY = [
    pytest.param(lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True), id="SGD"),
    pytest.param(lambda p: torch.optim.SGD(p, 0.05, foreach=True), id="SGD-foreach"),
    pytest.param(lambda p: torch.optim.SGD(p, 0.05, fused=True), id="SGD-fused"),
    pytest.param(lambda p: torch.optim.Adam(p, 0.05, foreach=True), id="Adam-foreach"),
    pytest.param(lambda p: torch.optim.Adam(p, 0.05, fused=True), id="Adam-fused"),
    pytest.param(lambda p: torch.optim.AdamW(p, torch.tensor(0.05), amsgrad=True), id="AdamW-tensor-rate"),
    pytest.param(lambda p: torch.optim.AdamW(p, 0.05, maximize=True), id="AdamW-maximize"),
    pytest.param(lambda p: torch.optim.Adagrad(p, 0.05, fused=True), id="Adagrad-fused"),
    pytest.param(lambda p: torch.optim.Adadelta(p, 0.05), id="Adadelta"),
    pytest.param(lambda p: torch.optim.Adafactor(p, 0.05), id="Adafactor"),
    pytest.param(lambda p: torch.optim.Adamax(p, 0.05), id="Adamax"),
    pytest.param(lambda p: torch.optim.ASGD(p, 0.05), id="ASGD"),
    pytest.param(lambda p: torch.optim.NAdam(p, 0.05), id="NAdam"),
    pytest.param(lambda p: torch.optim.RAdam(p, 0.05), id="RAdam"),
    pytest.param(lambda p: torch.optim.RMSprop(p, 0.05), id="RMSprop"),
    pytest.param(lambda p: torch.optim.Rprop(p, 0.05), id="Rprop"),
]


@pytest.mark.setting(
    "every optimizer of `torch.optim`; `foreach`, `fused`, `maximize`, a tensor as learning rate",
    records=["loss", "gradient_norm", "learning_rate", "parameter_gradient_norm", "parameter_update_norm"],
)
@pytest.mark.parametrize("make", EVERY)
def test_every_optimizer(trial: Trial, make: Make) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron()
        held = list(model.parameters())
        optimizer = make(held)
        with watch(model, optimizer):
            for step in range(5):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(held))
                truth.note(step, learning_rate=optimizer.param_groups[0]["lr"])
                truth.note_each(step, parameter_gradient_norm=gradient_norms(held))
                before = [p.detach().double() for p in held]
                optimizer.step()
                updates = [float((p.detach().double() - old).norm()) for p, old in zip(held, before, strict=True)]
                truth.note_each(step, parameter_update_norm=updates)
        return model, optimizer

    trial.run(job)


@pytest.mark.setting(
    "a learning rate schedule and groups with rates of their own", records=["loss", "gradient_norm", "learning_rate"]
)
def test_schedules_and_groups(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(
            [{"params": model[0].parameters(), "lr": 0.2}, {"params": model[4].parameters()}], 0.1
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=[0.5, 0.1], total_steps=8)
        held = [p for group in optimizer.param_groups for p in group["params"]]
        with watch(model, optimizer):
            for step in range(6):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                rate = max(group["lr"] for group in optimizer.param_groups)
                truth.note(step, loss=loss, gradient_norm=gradient_norm(held), learning_rate=rate)
                optimizer.step()
                schedule.step()
        return model, optimizer

    trial.run(job)


@pytest.mark.setting(
    "L-BFGS and other closures",
    records=["loss", "gradient_norm", "parameter_gradient_norm"],
)
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs_closures_are_read_after_they_ran(trial: Trial, search: str | None) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        x = torch.randn(32, 4)
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, line_search_fn=search)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = ((model(x) - x.sum(1, keepdim=True)) ** 2).mean()
            loss.backward()
            return loss

        with watch(model, optimizer):
            for step in range(5):
                truth.note(step, loss=optimizer.step(closure))  # type: ignore[arg-type]
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
        return model, optimizer

    trial.run(job)

    sampled = profiles(trial.directory, "parameter_update_norm")
    assert all(value < 0 for values in sampled.values() for value in values), "not known, which is not zero"


@pytest.mark.setting("a closure for an optimizer that calls it once", records=["loss", "gradient_norm"])
def test_a_closure_of_sgd(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                x, y = batch()

                def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
                    optimizer.zero_grad()
                    loss = nn.functional.cross_entropy(model(x), y)
                    loss.backward()
                    return loss

                truth.note(step, loss=optimizer.step(closure))  # type: ignore[arg-type]
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
        return model

    trial.run(job)


class Signs(Optimizer):
    """An optimizer nobody has heard of, whose ``step`` calls no other."""

    def __init__(self, parameters: Iterable[torch.Tensor], rate: float) -> None:
        super().__init__(parameters, {"lr": rate})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.add_(parameter.grad.sign(), alpha=-group["lr"])


class Lookahead(Optimizer):
    """An optimizer around another: both step, the parameters are the same."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__([p for group in inner.param_groups for p in group["params"]], {"lr": 0.5})
        self.inner = inner

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        slow = [p.clone() for group in self.param_groups for p in group["params"]]
        self.inner.step()
        fast = (p for group in self.param_groups for p in group["params"])
        for parameter, old in zip(fast, slow, strict=True):
            parameter.lerp_(old, 0.5)


@pytest.mark.setting(
    "optimizers of one's own, also around another", records=["loss", "gradient_norm", "parameter_update_norm"]
)
@pytest.mark.parametrize("around", [False, True], ids=["own", "around"])
def test_strangers(trial: Trial, *, around: bool) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        held = list(model.parameters())
        optimizer: Optimizer = Lookahead(torch.optim.Adam(held, 0.01)) if around else Signs(held, 0.01)
        with watch(model, optimizer):
            for step in range(4):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(held))
                before = [p.detach().double() for p in held]
                optimizer.step()
                updates = [float((p.detach().double() - old).norm()) for p, old in zip(held, before, strict=True)]
                truth.note_each(step, parameter_update_norm=updates)
        return model

    trial.run(job)


@pytest.mark.setting(
    "an optimizer for each parameter, stepping inside backward", records=["gradient_norm", "learning_rate"]
)
def test_optimizers_inside_backward(trial: Trial) -> None:
    """What saves memory: gradients are applied and freed as they arrive, and no loop calls ``step``."""

    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron()
        held = list(model.parameters())
        optimizers = {parameter: torch.optim.SGD([parameter], 0.1) for parameter in held}
        numbers = {parameter: number for number, parameter in enumerate(held)}
        steps = dict.fromkeys(held, 0)

        def apply(parameter: torch.Tensor) -> None:
            truth.note(
                steps[parameter], numbers[parameter], gradient_norm=gradient_norm([parameter]), learning_rate=0.1
            )
            steps[parameter] += 1
            optimizers[parameter].step()
            optimizers[parameter].zero_grad()

        handles = [parameter.register_post_accumulate_grad_hook(apply) for parameter in held]
        with watch(model, list(optimizers.values())):
            for _ in range(4):
                loss_of(model).backward()
        for handle in handles:
            handle.remove()
        return model

    trial.run(job)
