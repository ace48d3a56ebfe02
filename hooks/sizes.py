"""How much memory does a value hold, itself and what only it leads to?"""

import sys
from collections.abc import Iterator
from itertools import islice
from types import CellType, FunctionType
from typing import Any

import numpy as np
import torch

_WIDEST = 64
"""Elements looked at per container; the rest is taken to be like them."""
_TENSOR = 450
"""Bytes of a tensor besides its elements: the objects in C++ and Python and their padding, measured over 20,000."""


class Weigher:
    """Adds up bytes; memory that several values share counts once per weigher."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def bytes_of(self, value: Any, depth: int = 4) -> int:
        """Bytes of ``value``: a tensor's storage, an array's buffer, containers and attributes to ``depth``."""
        if issubclass(type(value), torch.Tensor):
            return self._once(id(value), _TENSOR) + self._once(_storage(value), _storage_bytes(value))
        if type(value) is np.ndarray:
            owner = value.base if isinstance(value.base, np.ndarray) else value
            return self._once(id(owner), sys.getsizeof(owner))
        if id(value) in self._seen:
            return 0
        size = self._once(id(value), sys.getsizeof(value, 0))
        return size + self._children(value, depth) if depth else size

    def _children(self, value: Any, depth: int) -> int:
        children = list(islice(_inside(value), _WIDEST))
        total = sum(self.bytes_of(child, depth - 1) for child in children)
        length = len(value) if type(value) in (list, tuple, dict, set) else len(children)
        return total * max(length, 1) // max(min(length, _WIDEST), 1)

    def _once(self, key: int, size: int) -> int:
        if key in self._seen:
            return 0
        self._seen.add(key)
        return size


def first_leaf(value: Any) -> Any:
    """The first tensor or array in ``value``, or ``value`` itself: what a person recognises by its shape."""
    return next(leaves(value), value)


def leaves(value: Any, depth: int = 4) -> Iterator[Any]:
    """The tensors and arrays in ``value``, to ``depth``; of wide containers only the first elements are looked at."""
    if issubclass(type(value), torch.Tensor) or type(value) is np.ndarray:
        yield value
    elif depth:
        for child in islice(_inside(value), _WIDEST):
            yield from leaves(child, depth - 1)


def type_name(value: Any) -> str:
    """``torch.Tensor``, ``numpy.ndarray``, ``float``, ``job.Record``."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _inside(value: Any) -> Iterator[Any]:
    kind = type(value)
    if kind is dict:
        yield from list(value.values())
    elif kind in (list, tuple, set):
        yield from list(value)
    elif kind is FunctionType:
        yield from (cell.cell_contents for cell in value.__closure__ or () if cell != CellType())
        yield from (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    elif kind.__module__ != "builtins" and not isinstance(value, (type, torch.nn.Module)):
        attributes = getattr(value, "__dict__", None)
        if type(attributes) is dict:
            yield from list(attributes.values())


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)


def _storage_bytes(tensor: torch.Tensor) -> int:
    if tensor.layout is not torch.strided:
        return tensor.numel() * tensor.element_size()
    return tensor.untyped_storage().nbytes()
