"""The small learnable tasks that the scripts beside this file break, one model family each."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ROWS = 2048
Loss = Callable[[Tensor, Tensor], Tensor]


class Task(NamedTuple):
    """A model, all of its data, its loss, and an optimizer with a rate at which it learns well."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    loss: Loss
    build: Callable[..., torch.optim.Optimizer]
    rate: float

    def batches(self, steps: int, size: int = 32) -> Iterator[tuple[Tensor, Tensor]]:
        """Random rows, with replacement."""
        for _ in range(steps):
            rows = torch.randint(0, len(self.inputs), (size,))
            yield self.inputs[rows], self.targets[rows]

    def optimizer(self, factor: float = 1.0) -> torch.optim.Optimizer:
        """The task's own, at ``factor`` times its rate."""
        return self.build(self.model.parameters(), lr=self.rate * factor)


class Recurrent(nn.Module):
    """Reads (batch, time, feature) and answers from the last hidden state."""

    def __init__(self, cells: type[nn.RNNBase], inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.body = cells(inputs, width, batch_first=True)
        self.head = nn.Linear(width, outputs)

    def forward(self, sequence: Tensor) -> Tensor:
        hidden, _ = self.body(sequence)
        return self.head(hidden[:, -1])


class Attention(nn.Module):
    """Two transformer layers over (batch, patch, feature), averaged."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)

    def forward(self, patches: Tensor) -> Tensor:
        return self.head(self.norm(self.body(self.embed(patches))).mean(1))


class Coder(nn.Module):
    """An encoder and a decoder around a narrow code."""

    def __init__(self, inputs: int, code: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 48), nn.GELU(), nn.Linear(48, code))
        self.decoder = nn.Sequential(nn.Linear(code, 48), nn.GELU(), nn.Linear(48, inputs))

    def forward(self, rows: Tensor) -> Tensor:
        return self.decoder(self.encoder(rows))


class Perceptron(nn.Module):
    """Two hidden layers of ReLUs."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, outputs)

    def forward(self, rows: Tensor) -> Tensor:
        return self.head(self.body(rows))


class Convolutional(nn.Module):
    """Two convolutions with batch normalisation over 12 x 12 images."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(3), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(24 * 9, outputs)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images))


def clusters(shape: tuple[int, ...], classes: int, spread: float) -> tuple[Tensor, Tensor]:
    """Noisy copies of one random pattern per class."""
    labels = torch.randint(0, classes, (ROWS,))
    return torch.randn(classes, *shape)[labels] + spread * torch.randn(ROWS, *shape), labels


def momentum(parameters: Iterator[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def mlp() -> Task:
    return Task(Perceptron(20, 64, 10), *clusters((20,), 10, 1.0), F.cross_entropy, momentum, 0.02)


def cnn() -> Task:
    return Task(Convolutional(10), *clusters((1, 12, 12), 10, 1.5), F.cross_entropy, torch.optim.Adam, 2e-3)


def gru() -> Task:
    inputs = torch.randn(ROWS, 10, 4)
    return Task(Recurrent(nn.GRU, 4, 32, 1), inputs, inputs.sum((1, 2))[:, None] / 6, F.mse_loss, torch.optim.SGD, 0.1)


def lstm() -> Task:
    inputs, labels = clusters((8, 5), 6, 1.5)
    return Task(Recurrent(nn.LSTM, 5, 32, 6), inputs, labels, F.cross_entropy, torch.optim.RMSprop, 2e-3)


def transformer() -> Task:
    inputs, labels = clusters((9, 8), 8, 1.5)
    return Task(Attention(8, 32, 8), inputs, labels, F.cross_entropy, torch.optim.AdamW, 1e-3)


def autoencoder() -> Task:
    rows = torch.randn(ROWS, 4) @ torch.randn(4, 24) / 2 + 0.1 * torch.randn(ROWS, 24)
    return Task(Coder(24, 4), rows, rows, F.mse_loss, torch.optim.Adam, 2e-3)


FAMILIES: dict[str, Callable[[], Task]] = {
    "mlp": mlp,
    "cnn": cnn,
    "gru": gru,
    "lstm": lstm,
    "transformer": transformer,
    "autoencoder": autoencoder,
}


def make(family: str, seed: int) -> Task:
    """The task of ``family``, the same for the same ``seed``."""
    torch.manual_seed(seed)
    return FAMILIES[family]()


def cosine(step: int, steps: int) -> float:
    """The factor of a cosine schedule."""
    return 0.5 + 0.5 * math.cos(math.pi * step / steps)
