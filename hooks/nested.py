"""Tensors inside the arguments and results of modules: tuples, lists, dictionaries and dataclasses of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import torch

DEEPEST = 6
"""Levels of nesting that are followed: real batches have two or three, a self-containing list has no end."""


def tensors(value: Any, depth: int = DEEPEST) -> Iterator[torch.Tensor]:
    """Every tensor in ``value``, in order; whatever is no known container is passed over.

    >>> [t.item() for t in tensors({"a": torch.tensor(1), "b": [torch.tensor(2), "text"]})]
    [1, 2]
    """
    if isinstance(value, torch.Tensor):
        yield value
    elif depth:
        for child in _children(value):
            yield from tensors(child, depth - 1)


def replaced(value: Any, change: Callable[[torch.Tensor], torch.Tensor], depth: int = DEEPEST) -> Any:
    """A copy of ``value`` with each tensor changed; containers of unknown kinds stay the objects they are."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if not depth:
        return value
    if type(value) is dict:
        return {key: replaced(child, change, depth - 1) for key, child in value.items()}
    if type(value) in (list, tuple):
        return type(value)(replaced(child, change, depth - 1) for child in value)
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(replaced(child, change, depth - 1) for child in value)
    return value


def _children(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, Mapping):
        yield from value.values()
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield getattr(value, field.name, None)
