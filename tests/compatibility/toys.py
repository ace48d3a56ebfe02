"""Small models and batches that the settings train."""

import torch
from torch import nn


def classifier(*, dropout: float = 0.3) -> nn.Sequential:
    """With batch norm, an in-place activation and dropout: buffers, overwritten outputs and random numbers."""
    return nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(16, 3)
    )


def perceptron() -> nn.Sequential:
    """Without anything that autocast or compilation treats in a special way."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def batch(rows: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Six columns; the class is the largest of the first three."""
    x = torch.randn(rows, 6)
    return x, x[:, :3].argmax(1)


def loss_of(model: nn.Module, rows: int = 8) -> torch.Tensor:
    """The loss of a fresh batch."""
    x, y = batch(rows)
    return nn.functional.cross_entropy(model(x), y)
