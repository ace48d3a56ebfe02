"""What a training computes by itself, in double precision, to hold the recorded signals against."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torchvitals.signals.records import ABSENT


class Truth:
    """The books a job keeps: step → value of each signal of each optimizer."""

    def __init__(self) -> None:
        self.scalars: dict[tuple[int, str], dict[int, float]] = {}
        self.profiles: dict[tuple[int, str], dict[int, list[float]]] = {}

    def note(self, step: int, optimizer: int = 0, **values: Any) -> None:
        """Numbers or one-element tensors of a step."""
        for signal, value in values.items():
            number = value.detach() if isinstance(value, torch.Tensor) else value
            self.scalars.setdefault((optimizer, signal), {})[step] = float(number)

    def note_each(self, step: int, optimizer: int = 0, **values: Iterable[float]) -> None:
        """One number per parameter (or module) of a step."""
        for signal, entries in values.items():
            self.profiles.setdefault((optimizer, signal), {})[step] = [float(entry) for entry in entries]

    @property
    def signals(self) -> set[str]:
        """What the books are about."""
        return {signal for _, signal in (*self.scalars, *self.profiles)}


def norm(tensors: Iterable[torch.Tensor | None]) -> float:
    """2-norm over all of ``tensors``, those that are ``None`` left out."""
    return math.sqrt(sum(float(_numbers(t).pow(2).sum()) for t in tensors if t is not None))


def gradient_norm(parameters: Iterable[torch.Tensor]) -> float:
    """2-norm of the gradients of ``parameters``."""
    return norm([parameter.grad for parameter in parameters])


def gradient_norms(parameters: Iterable[torch.Tensor]) -> list[float]:
    """2-norm of each gradient, ``ABSENT`` where there is none."""
    return [ABSENT if p.grad is None else norm([p.grad]) for p in parameters]


def identical(one: Any, other: Any) -> bool:
    """Whether two nested results hold the same bits, NaN and signed zeros included."""
    ours, theirs = list(_leaves(one)), list(_leaves(other))
    return len(ours) == len(theirs) and all(map(_same, ours, theirs))


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor):
        return repr(one) == repr(other)
    alike = (one.dtype, one.shape, one.grad_fn is None) == (other.dtype, other.shape, other.grad_fn is None)
    return alike and torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.nn.Module | torch.optim.Optimizer):
        value = value.state_dict()
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _numbers(tensor: torch.Tensor) -> torch.Tensor:
    tensor = tensor.detach()
    return (tensor.coalesce().values() if tensor.is_sparse else tensor).double()
