"""The trainings whose cost is measured: each with a model, an optimizer, one batch, and a step as people write it."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch._dynamo
from torch import nn


class Workload(NamedTuple):
    """How to build a model and its batch, and how it is trained."""

    build: Callable[[], nn.Module]
    batch: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    autocast: bool = False
    compiled: bool = False
    ranks: int = 1


class Job:
    """A model, an optimizer, a batch and one step of training.

    Args:
        workload: what is trained.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, workload: Workload, device: str) -> None:
        torch.manual_seed(0)
        self.inner = workload.build().to(device)
        self.model: nn.Module = self.inner
        if workload.ranks > 1:
            self.model = nn.parallel.DistributedDataParallel(self.inner)
        if workload.compiled:
            # The contenders' models are twins with hooks of their own: none shall run the code of another.
            torch._dynamo.config.skip_nnmodule_hook_guards = False
            torch._dynamo.config.recompile_limit = 64
            self.model = torch.compile(self.inner)  # type: ignore[assignment]
        # Hardly any rate: on one batch that is learnt the loss falls to zero, and a restless job is looked at more.
        self.optimizer = torch.optim.AdamW(self.inner.parameters(), lr=1e-7)
        self.x, self.y = (tensor.to(device) for tensor in workload.batch())
        self._autocast = workload.autocast
        self._scaler = torch.amp.GradScaler(device, enabled=workload.autocast and device == "cuda")
        self._device = device

    def loss(self) -> torch.Tensor:
        dtype = torch.float16 if self._device == "cuda" else torch.bfloat16
        with torch.autocast(self._device, dtype) if self._autocast else nullcontext():
            output = self.model(self.x)
            return nn.functional.cross_entropy(output.flatten(0, -2), self.y.flatten())

    def step(self) -> torch.Tensor:
        """One step; the loss."""
        self.optimizer.zero_grad()
        loss = self.loss()
        if self._scaler.is_enabled():
            self._scaler.scale(loss).backward()
            self._scaler.step(self.optimizer)
            self._scaler.update()
        else:
            loss.backward()
            self.optimizer.step()
        return loss


class Transformer(nn.Module):
    """A decoder-only language model of ``width`` with ``depth`` layers."""

    def __init__(self, width: int = 256, depth: int = 4, vocabulary: int = 512, length: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.place = nn.Parameter(torch.zeros(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, vocabulary)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(tokens) + self.place, mask=self.mask, is_causal=True))


class Recurrent(nn.Module):
    """An LSTM classifier of every position."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, num_layers=2, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(x)[0])


def mlp() -> nn.Module:
    """Three layers; a step of about 2 ms."""
    return nn.Sequential(nn.Linear(128, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def cnn() -> nn.Module:
    """A small convolutional classifier with batch norm."""
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def images() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(32, 3, 32, 32), torch.randint(0, 10, (32,))


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(64, 128), torch.randint(0, 10, (64,))


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(16, 32, 64), torch.randint(0, 10, (16, 32))


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(0, 512, (8, 64)), torch.randint(0, 512, (8, 64))


WORKLOADS: dict[str, Workload] = {
    "mlp": Workload(mlp, rows),
    "cnn": Workload(cnn, images),
    "lstm": Workload(Recurrent, sequences),
    "small transformer": Workload(lambda: Transformer(width=128, depth=3), tokens),
    "transformer": Workload(Transformer, tokens),
    "amp transformer": Workload(Transformer, tokens, autocast=True),
    "ddp": Workload(cnn, images, ranks=2),
    "compiled mlp": Workload(mlp, rows, compiled=True),
}


def describe(workload: Workload) -> dict[str, Any]:
    """What a reader of the numbers must know."""
    parameters = sum(parameter.numel() for parameter in workload.build().parameters())
    return {
        "parameters": parameters,
        "autocast": workload.autocast,
        "compiled": workload.compiled,
        "ranks": workload.ranks,
    }
