"""Healthy trainings in many styles: each must stay silent. Name → function of the seed → tapes by optimizer."""

from collections.abc import Callable

import torch
from models import CharTransformer, Recurrent, blobs, convolutional, mlp, words
from recording import Tape
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LambdaLR

Training = Callable[[int], list[Tape]]
HEALTHY: dict[str, Training] = {}
STEPS = 600


def healthy(function: Training) -> Training:
    HEALTHY[function.__name__] = function
    return function


def classify(seed: int, build: str, lr: float, *, batch: int = 32, clip: float = 0, steps: int = STEPS) -> list[Tape]:
    """Ten noisy blobs; ``build`` is ``sgd``, ``momentum``, ``adam`` or ``adamw``."""
    torch.manual_seed(seed)
    inputs, labels = blobs(2000, 20, 10, spread=2.0)
    model = mlp(20, 64, 10)
    tape = Tape(model.parameters(), make_optimizer(build, model, lr), clip)
    for _ in range(steps):
        rows = torch.randint(0, 2000, (batch,))
        tape.learn(F.cross_entropy(model(inputs[rows]), labels[rows]), inputs[rows])
    return [tape]


def make_optimizer(build: str, model: nn.Module, lr: float) -> torch.optim.Optimizer:
    if build == "sgd":
        return torch.optim.SGD(model.parameters(), lr)
    if build == "momentum":
        return torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    if build == "adam":
        return torch.optim.Adam(model.parameters(), lr)
    return torch.optim.AdamW(model.parameters(), lr)


@healthy
def mlp_sgd(seed: int) -> list[Tape]:
    return classify(seed, "sgd", 0.1)


@healthy
def mlp_momentum_large_rate(seed: int) -> list[Tape]:
    return classify(seed, "momentum", 0.1)


@healthy
def mlp_adam_high_but_stable(seed: int) -> list[Tape]:
    return classify(seed, "adam", 1e-2)


@healthy
def mlp_short(seed: int) -> list[Tape]:
    return classify(seed, "adam", 3e-3, steps=100)


@healthy
def batch_of_one(seed: int) -> list[Tape]:
    return classify(seed, "sgd", 0.02, batch=1, steps=3000)


@healthy
def batch_of_one_adam(seed: int) -> list[Tape]:
    return classify(seed, "adam", 1e-3, batch=1, steps=3000)


@healthy
def memorised(seed: int) -> list[Tape]:
    """Separable data: the loss falls to 1e-6 and its noise is as large as itself."""
    torch.manual_seed(seed)
    inputs, labels = blobs(200, 20, 5, spread=0.5)
    model = mlp(20, 128, 5)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 1e-2))
    for _ in range(1500):
        rows = torch.randint(0, 200, (16,))
        tape.learn(F.cross_entropy(model(inputs[rows]), labels[rows]), inputs[rows])
    return [tape]


@healthy
def random_labels_memorised(seed: int) -> list[Tape]:
    torch.manual_seed(seed)
    inputs, labels = torch.randn(128, 20), torch.randint(0, 10, (128,))
    model = mlp(20, 256, 10)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 3e-3))
    for _ in range(800):
        rows = torch.randint(0, 128, (8,))
        tape.learn(F.cross_entropy(model(inputs[rows]), labels[rows]), inputs[rows])
    return [tape]


@healthy
def noiseless_regression(seed: int) -> list[Tape]:
    """Converges by ten decades, then floating point noise."""
    torch.manual_seed(seed)
    inputs = torch.randn(256, 10)
    targets = inputs @ torch.randn(10, 1)
    model = nn.Linear(10, 1)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 3e-2))
    for _ in range(2000):
        rows = torch.randint(0, 256, (32,))
        tape.learn(F.mse_loss(model(inputs[rows]), targets[rows]), inputs[rows])
    return [tape]


@healthy
def regression_of_one(seed: int) -> list[Tape]:
    """One row per step: the loss is a squared normal number, so the first says nothing of the next."""
    torch.manual_seed(seed)
    weights = torch.randn(10, 1)
    model = mlp(10, 32, 1)
    tape = Tape(model.parameters(), torch.optim.SGD(model.parameters(), 1e-3))
    for _ in range(2000):
        inputs = torch.randn(1, 10)
        tape.learn(F.mse_loss(model(inputs), 5 * inputs @ weights + torch.randn(1, 1)), inputs)
    return [tape]


@healthy
def summed_loss(seed: int) -> list[Tape]:
    torch.manual_seed(seed)
    inputs = torch.randn(1000, 10)
    targets = 100 * torch.sin(inputs.sum(1, keepdim=True)) + 20 * torch.randn(1000, 1)
    model = mlp(10, 64, 1)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 1e-3), clip=1.0)
    for _ in range(STEPS):
        rows = torch.randint(0, 1000, (128,))
        tape.learn(F.mse_loss(model(inputs[rows]), targets[rows], reduction="sum"), inputs[rows])
    return [tape]


@healthy
def large_first_loss(seed: int) -> list[Tape]:
    """Targets around 1000: the loss begins at 1e6 and falls by four decades."""
    torch.manual_seed(seed)
    inputs = torch.rand(1000, 8) * 50
    targets = inputs.sum(1, keepdim=True) * 5 + 10 * torch.randn(1000, 1)
    model = mlp(8, 64, 1)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 3e-3))
    for _ in range(STEPS):
        rows = torch.randint(0, 1000, (32,))
        tape.learn(F.mse_loss(model(inputs[rows]), targets[rows]), inputs[rows])
    return [tape]


@healthy
def heavy_tailed_targets(seed: int) -> list[Tape]:
    torch.manual_seed(seed)
    noise = torch.distributions.StudentT(2.0)
    inputs = torch.randn(4000, 10)
    targets = inputs.sum(1, keepdim=True) + noise.sample((4000, 1))
    model = mlp(10, 32, 1)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 1e-3))
    for _ in range(2000):
        rows = torch.randint(0, 4000, (8,))
        tape.learn(F.mse_loss(model(inputs[rows]), targets[rows]), inputs[rows])
    return [tape]


@healthy
def catapult(seed: int) -> list[Tape]:
    """A large rate on a wide net: the loss climbs at first, flattens the landscape, and falls."""
    torch.manual_seed(seed)
    inputs, targets = torch.randn(64, 10), torch.randn(64, 1)
    first, second = torch.randn(10, 512, requires_grad=True), torch.randn(512, 1, requires_grad=True)
    parameters = [first, second]
    tape = Tape(parameters, torch.optim.SGD(parameters, 2.5))  # type: ignore[arg-type]
    for _ in range(400):
        output = (inputs @ first / 10**0.5) @ second / 512**0.5
        tape.learn(0.5 * ((output - targets) ** 2).mean(), inputs)
    return [tape]


@healthy
def transformer_warmup_cosine(seed: int) -> list[Tape]:
    return language(seed, 400, 3e-3, clip=1.0, warmup=60)


@healthy
def transformer_plain(seed: int) -> list[Tape]:
    return language(seed, 300, 1e-3, clip=0, warmup=0)


def language(seed: int, steps: int, lr: float, *, clip: float, warmup: int) -> list[Tape]:
    torch.manual_seed(seed)
    text = words(20_000)
    model = CharTransformer(27, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    schedule = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (warmup + 1)) * (1 - 0.9 * step / steps))
    tape = Tape(model.parameters(), optimizer, clip)
    for _ in range(steps):
        starts = torch.randint(0, len(text) - 33, (8,))
        window = torch.stack([text[start : start + 33] for start in starts])
        tape.learn(F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten()), window)
        schedule.step()
    return [tape]


@healthy
def lstm_with_spikes(seed: int) -> list[Tape]:
    """The adding task over long sequences: gradient spikes that recover."""
    return adding(seed, clip=0.0, lr=1e-2)


@healthy
def lstm_clipped(seed: int) -> list[Tape]:
    return adding(seed, clip=1.0, lr=1e-2)


def adding(seed: int, *, clip: float, lr: float) -> list[Tape]:
    torch.manual_seed(seed)
    model = Recurrent(2, 32, 1)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), lr), clip)
    for _ in range(400):
        inputs = torch.rand(20, 32, 2)
        marks = torch.randint(0, 10, (32,)), torch.randint(10, 20, (32,))
        inputs[..., 1] = 0
        inputs[marks[0], torch.arange(32), 1] = 1
        inputs[marks[1], torch.arange(32), 1] = 1
        targets = (inputs[..., 0] * inputs[..., 1]).sum(0, keepdim=True).T
        tape.learn(F.mse_loss(model(inputs), targets), inputs)
    return [tape]


@healthy
def convolution_momentum(seed: int) -> list[Tape]:
    torch.manual_seed(seed)
    templates = torch.randn(10, 1, 12, 12)
    model = convolutional()
    tape = Tape(model.parameters(), torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4))
    for _ in range(300):
        labels = torch.randint(0, 10, (16,))
        inputs = templates[labels] + torch.randn(16, 1, 12, 12)
        tape.learn(F.cross_entropy(model(inputs), labels), inputs)
    return [tape]


@healthy
def warm_restarts(seed: int) -> list[Tape]:
    torch.manual_seed(seed)
    inputs, labels = blobs(500, 20, 10, spread=1.0)
    model = mlp(20, 128, 10)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    schedule = CosineAnnealingWarmRestarts(optimizer, 150, 2)
    tape = Tape(model.parameters(), optimizer)
    for _ in range(1050):
        rows = torch.randint(0, 500, (16,))
        tape.learn(F.cross_entropy(model(inputs[rows]), labels[rows]), inputs[rows])
        schedule.step()
    return [tape]


@healthy
def task_switch(seed: int) -> list[Tape]:
    """The labels are permuted every 300 steps: the loss returns above its start and is learnt again."""
    torch.manual_seed(seed)
    inputs, labels = blobs(1000, 20, 10, spread=1.0)
    model = mlp(20, 64, 10)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 3e-3))
    for step in range(900):
        if step % 300 == 0:
            order = torch.randperm(10)
        rows = torch.randint(0, 1000, (32,))
        tape.learn(F.cross_entropy(model(inputs[rows]), order[labels[rows]]), inputs[rows])
    return [tape]


@healthy
def curriculum_of_lengths(seed: int) -> list[Tape]:
    """Summed loss over sequences that grow from 4 to 32."""
    torch.manual_seed(seed)
    model = Recurrent(4, 32, 4)
    tape = Tape(model.parameters(), torch.optim.Adam(model.parameters(), 3e-3), clip=5.0)
    for step in range(600):
        length = (4, 8, 16, 32)[step // 150]
        inputs = torch.randn(length, 16, 4)
        targets = inputs.cumsum(0) / 4
        tape.learn(F.mse_loss(model.every(inputs), targets, reduction="sum"), inputs)
    return [tape]


@healthy
def fine_tuning(seed: int) -> list[Tape]:
    """A trained body, half frozen, with a new head and a small rate."""
    torch.manual_seed(seed)
    inputs, labels = blobs(1000, 20, 10, spread=1.5)
    model = mlp(20, 64, 10)
    body = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        body.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        body.step()
    model[0].requires_grad_(requires_grad=False)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, 1e-4)
    schedule = CosineAnnealingLR(optimizer, STEPS)
    tape = Tape(trainable, optimizer, clip=1.0)
    for _ in range(STEPS):
        rows = torch.randint(0, 1000, (16,))
        tape.learn(F.cross_entropy(model(inputs[rows]), labels[rows]), inputs[rows])
        schedule.step()
    return [tape]
