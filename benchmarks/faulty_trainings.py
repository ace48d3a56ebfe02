"""Trainings with one fault each, put into six tasks: the truth is known to the step."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from models import CharTransformer, Recurrent, blobs, convolutional, mlp, words
from recording import Recording, Tape
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

GREW = ("explosion", "divergence", "loss_spike")
STEPS = 240


class Task(NamedTuple):
    """A model, its batches, its loss, and rates at which it learns well."""

    model: nn.Module
    batch: Callable[[], tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    rates: dict[str, float]


def classification(depth: int = 2) -> Task:
    inputs, labels = blobs(2000, 20, 10, spread=1.0)

    def batch() -> tuple[Tensor, Tensor]:
        rows = torch.randint(0, 2000, (32,))
        return inputs[rows], labels[rows]

    return Task(mlp(20, 64, 10, depth), batch, F.cross_entropy, {"sgd": 0.1, "momentum": 0.02, "adam": 3e-3})


def regression() -> Task:
    weights = torch.randn(12, 1)

    def batch() -> tuple[Tensor, Tensor]:
        inputs = torch.randn(64, 12)
        return inputs, torch.sin(inputs @ weights) + 0.1 * torch.randn(64, 1)

    return Task(mlp(12, 48, 1, 2, nn.Tanh), batch, F.mse_loss, {"sgd": 0.05, "momentum": 0.02, "adam": 3e-3})


def images() -> Task:
    templates = torch.randn(10, 1, 12, 12)

    def batch() -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, 10, (16,))
        return templates[labels] + torch.randn(16, 1, 12, 12), labels

    return Task(convolutional(), batch, F.cross_entropy, {"sgd": 0.1, "momentum": 0.03, "adam": 3e-3})


def text() -> Task:
    corpus = words(8000)

    def batch() -> tuple[Tensor, Tensor]:
        window = torch.stack([corpus[s : s + 25] for s in torch.randint(0, 7900, (8,))])
        return window[:, :-1], window[:, 1:]

    def loss(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    return Task(CharTransformer(27, 32), batch, loss, {"sgd": 0.3, "momentum": 0.05, "adam": 2e-3})


def sequences() -> Task:
    def batch() -> tuple[Tensor, Tensor]:
        inputs = torch.randn(12, 16, 3)
        return inputs, inputs.sum((0, 2)).unsqueeze(1) / 6

    return Task(Recurrent(3, 24, 1), batch, F.mse_loss, {"sgd": 0.1, "momentum": 0.03, "adam": 1e-2})


TASKS: dict[str, Callable[[], Task]] = {
    "classification": classification,
    "deep": lambda: classification(8),
    "regression": regression,
    "images": images,
    "text": text,
    "sequences": sequences,
}


class Fault(NamedTuple):
    """What goes wrong. ``rate`` maps a step to a factor on the learning rate; the rest act on one step."""

    word: str
    kinds: tuple[str, ...]
    causes: tuple[str, ...]
    onset: int = 0
    rate: Callable[[int], float] = lambda _: 1.0
    model: Callable[[nn.Module, int], None] = lambda _model, _step: None
    inputs: Callable[[Tensor, int], Tensor] = lambda inputs, _: inputs
    target: Callable[[Tensor, int], Tensor] = lambda target, _: target
    loss: Callable[[Tensor, int], Tensor] = lambda loss, _: loss
    reset: bool = True


def optimizer_of(build: str, model: nn.Module, rate: float) -> torch.optim.Optimizer:
    if build == "adam":
        return torch.optim.Adam(model.parameters(), rate)
    return torch.optim.SGD(model.parameters(), rate, momentum=0.9 if build == "momentum" else 0)


def train(task_name: str, build: str, fault: Fault, seed: int, *, clip: float = 0, steps: int = STEPS) -> Recording:
    """Run one training with the fault in it; it ends 20 steps after the loss stops being finite."""
    torch.manual_seed(seed)
    task = TASKS[task_name]()
    base = task.rates[build]
    tape = Tape(task.model.parameters(), optimizer_of(build, task.model, base), clip)
    tape.reset = fault.reset
    bad = 0
    for step in range(steps):
        for group in tape.optimizer.param_groups:
            group["lr"] = base * fault.rate(step)
        fault.model(task.model, step)
        inputs, target = task.batch()
        inputs, target = fault.inputs(inputs, step), fault.target(target, step)
        loss = fault.loss(task.loss(task.model(inputs), target), step)
        tape.learn(loss, inputs)
        bad += not math.isfinite(float(loss))
        if bad > 20:
            break
    name = f"{fault.word}/{task_name}/{build}/{'clip' if clip else 'free'}"
    return Recording(
        family=task_name,
        name=name,
        seed=seed,
        kinds=fault.kinds,
        causes=fault.causes,
        onset=fault.onset,
        steps=tape.steps,
    )


def rate_faults(onset: int, factor: float) -> Iterator[Fault]:
    high = ("learning_rate_too_high",)
    yield Fault(f"rate_from_start_{factor:g}", (*GREW, "nonfinite"), high, 0, rate=lambda _: factor)
    yield Fault(f"rate_jump_{factor:g}", (*GREW, "nonfinite"), high, onset, rate=lambda s: factor if s >= onset else 1)


def growing_rate(onset: int) -> Fault:
    """A schedule multiplied once too often: the rate compounds."""
    return Fault(
        "rate_compounds",
        (*GREW, "nonfinite"),
        ("learning_rate_too_high",),
        onset,
        rate=lambda s: 1.25 ** max(0, min(s - onset, 120)),
    )


def swollen_weights(onset: int, factor: float) -> Fault:
    def swell(model: nn.Module, step: int) -> None:
        if step == onset:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(factor)

    return Fault("swollen_weights", GREW, ("unknown",), onset, model=swell)


def wild_start(factor: float) -> Fault:
    """Weights drawn far too wide."""

    def widen(model: nn.Module, step: int) -> None:
        if step == 0:
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.dim() > 1:
                        parameter.mul_(factor)

    return Fault("wild_start", (*GREW, "nonfinite"), ("bad_initialization",), 0, model=widen)


def batch_faults(onset: int) -> Iterator[Fault]:
    def scaled(inputs: Tensor, step: int) -> Tensor:
        return inputs * 1e4 if step == onset and inputs.is_floating_point() else inputs

    def broken(inputs: Tensor, step: int) -> Tensor:
        if step == onset and inputs.is_floating_point():
            inputs = inputs.clone()
            inputs.view(-1)[3] = torch.nan
        return inputs

    yield Fault("batch_scaled", GREW, ("bad_batch",), onset, inputs=scaled)
    yield Fault("batch_with_nan", ("nonfinite",), ("bad_batch",), onset, inputs=broken)


def domain_faults(onset: int) -> Iterator[Fault]:
    def logarithm(loss: Tensor, step: int) -> Tensor:
        return loss + 0.1 * torch.log(loss.detach() - loss) if step == onset else loss

    def root(loss: Tensor, step: int) -> Tensor:
        return loss + torch.sqrt(loss - loss.detach()) if step == onset else loss

    word = ("numerical_domain_error",)
    yield Fault("log_of_zero", ("nonfinite",), word, onset, loss=logarithm)
    yield Fault("root_at_zero", ("nonfinite",), word, onset, loss=root)


def other_faults(onset: int) -> Iterator[Fault]:
    yield Fault("never_zeroed", (*GREW, "nonfinite"), ("missing_zero_grad",), 0, reset=False)
    yield Fault("ascent", GREW, ("unknown",), onset, loss=lambda loss, step: -loss if step >= onset else loss)
    yield growing_rate(onset)


def faulty(seed: int) -> Iterator[Recording]:
    """Every fault in every task it fits, with and without clipping, one optimizer each by turns."""
    builds = ("sgd", "momentum", "adam")
    for number, task in enumerate(TASKS):
        onset = 60 + 17 * ((seed + number) % 6)
        build = builds[(seed + number) % 3]
        other = builds[(seed + number + 1) % 3]
        faults = [*rate_faults(onset, 100), *rate_faults(onset, 1000), *other_faults(onset), *domain_faults(onset)]
        faults += [swollen_weights(onset, 10), wild_start(30)]
        if task != "text":
            faults += batch_faults(onset)
        for fault in faults:
            yield train(task, build, fault, seed)
            yield train(task, other, fault, seed, clip=1.0)
