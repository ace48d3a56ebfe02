"""The small models and generated data that the benchmark trainings share."""

import itertools

import torch
from torch import Tensor, nn


def mlp(inputs: int, width: int, outputs: int, depth: int = 2, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """``depth`` hidden layers."""
    sizes = [inputs] + [width] * depth
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def convolutional() -> nn.Sequential:
    """12 × 12 images, ten classes."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


class CharTransformer(nn.Module):
    """Two causal layers over characters."""

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.place = nn.Parameter(0.02 * torch.randn(32, width))
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.1, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, symbols)

    def forward(self, text: Tensor) -> Tensor:
        length = text.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.body(self.embed(text) + self.place[:length], mask=mask, is_causal=True)
        return self.head(hidden)  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """An LSTM over (time, batch, feature) with a linear read-out."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        super().__init__()
        self.cells = nn.LSTM(inputs, width)
        self.head = nn.Linear(width, outputs)

    def forward(self, sequence: Tensor) -> Tensor:
        """The read-out of the last time step."""
        return self.every(sequence)[-1]

    def every(self, sequence: Tensor) -> Tensor:
        """The read-out of every time step."""
        hidden, _ = self.cells(sequence)
        return self.head(hidden)  # type: ignore[no-any-return]


def blobs(count: int, features: int, classes: int, spread: float) -> tuple[Tensor, Tensor]:
    """Gaussian clusters around random unit-variance centres."""
    centres = torch.randn(classes, features)
    labels = torch.randint(0, classes, (count,))
    return centres[labels] + spread * torch.randn(count, features), labels


def words(length: int) -> Tensor:
    """Characters 0…26 (26 is the space) of words drawn from a random vocabulary of 40."""
    vocabulary = [torch.randint(0, 26, (int(torch.randint(2, 8, ())),)) for _ in range(40)]
    space = torch.tensor([26])
    pieces: list[Tensor] = []
    total = 0
    while total < length:
        word = vocabulary[int(torch.randint(0, 40, ()))]
        pieces += [word, space]
        total += len(word) + 1
    return torch.cat(pieces)[:length]
