"""How many things are there, how long are the containers, how large the graphs: numbers only, no references.

One pass over the garbage collector's objects. Containers are kept as two integers each (16 bytes), since a
process has hundreds of thousands of them; from the second census on only those that grew are followed.
"""

import gc
import sys
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvitals.hooks.growing_tensors import forms
from torchvitals.hooks.source import locals_of, of_library

_LENGTHS: tuple[tuple[type, Callable[[Any], int]], ...] = (
    (list, list.__len__),
    (OrderedDict, OrderedDict.__len__),
    (dict, dict.__len__),
    (set, set.__len__),
    (deque, deque.__len__),
)
"""The built-in lengths, so that no ``__len__`` of the job runs."""
_MOST_GRAPHS = 48
"""Living tensors whose graphs are measured, the newest first."""
_ALIKE = 4
"""Of those with one operation and shape: a net that is called in a loop leaves a hundred outputs in a step."""
_MOST_NODES = 200_000
"""Nodes counted per graph, 0.2 s: an unrolled recurrent net adds 350 a step, and is hunted after some hundred steps."""
_NODES_IN_ALL = 1_000_000
"""Nodes counted per census."""

Lengths = tuple[NDArray[np.uint64], NDArray[np.int64]]
"""Ids of containers, ascending, and their lengths."""


class Census:
    """What one pass has counted.

    Args:
        deadline: ``time.thread_time()`` after which graphs are no longer measured.
    """

    def __init__(self, deadline: float) -> None:
        things = objects()
        kinds = list(map(type, things))
        self.types = Counter(kinds)
        measures = {kind: measure for kind in self.types if (measure := _measure(kind)) is not None}
        measured = [thing for thing, kind in zip(things, kinds, strict=True) if kind in measures]
        ids = np.fromiter(map(id, measured), dtype=np.uint64, count=len(measured))
        sizes = np.fromiter((measures[type(thing)](thing) for thing in measured), np.int64, count=len(measured))
        order = np.argsort(ids)
        self.lengths = ids[order], sizes[order]
        tensor_kinds = {kind for kind in self.types if issubclass(kind, torch.Tensor)}
        tensors = [thing for thing, kind in zip(things, kinds, strict=True) if kind in tensor_kinds]
        tensors = [tensor for tensor in tensors if has_numbers(tensor)]
        self.forms = forms(tensor for tensor in tensors if tensor.layout is torch.strided)
        tensors = [tensor for tensor in tensors if tensor.grad_fn is not None]
        self.graphs = _graph_sizes(tensors, deadline)


def objects() -> list[Any]:
    """What the garbage collector watches, and the dictionaries that it does not.

    It forgets a dictionary of nothing but numbers, strings and arrays, since that can't be part of a cycle: a cache of
    results by key, the commonest leak there is. Those are found through what refers to them, other dictionaries
    (variables of modules and functions, too) and the job's own objects, 70 ms where there are 300,000 objects.
    """
    things = gc.get_objects()
    kinds = list(map(type, things))
    own = {kind for kind in set(kinds) if kind is dict or _of_the_job(kind)}
    holders = [thing for thing, kind in zip(things, kinds, strict=True) if kind in own]
    scopes = [locals_of(frame) for frame in frames()]
    for held in (gc.get_referents(*holders), *map(gc.get_referents, scopes)):
        things += {id(thing): thing for thing in held if type(thing) is dict and not gc.is_tracked(thing)}.values()
    return things


def frames() -> Iterator[FrameType]:
    """Frames of all threads, without ours."""
    for innermost in list(sys._current_frames().values()):
        frame: FrameType | None = innermost
        while frame is not None:
            if not frame.f_globals.get("__name__", "").startswith("torchvitals.hooks"):
                yield frame
            frame = frame.f_back


def _of_the_job(kind: type) -> bool:
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    return isinstance(file, str) and not of_library(file)


def grown(before: Mapping[int, list[int]] | Lengths, now: Lengths) -> dict[int, list[int]]:
    """Container id → its lengths so far, of those that are longer ``now`` than ``before``.

    One that was not there before counts as empty then: Python tracks a dictionary only from the first
    entry on that could be part of a cycle.
    """
    if isinstance(before, Mapping):
        known = np.fromiter(before, dtype=np.uint64, count=len(before))
        places = np.minimum(np.searchsorted(now[0], known), len(now[0]) - 1)
        return {
            key: [*lengths, int(now[1][place])]
            for (key, lengths), place in zip(before.items(), places, strict=True)
            if int(now[0][place]) == key and now[1][place] > lengths[-1]
        }
    places = np.minimum(np.searchsorted(before[0], now[0]), len(before[0]) - 1)
    old = np.where(before[0][places] == now[0], before[1][places], 0)
    longer = now[1] > old
    return {
        int(key): [int(earlier), int(later)]
        for key, earlier, later in zip(now[0][longer], old[longer], now[1][longer], strict=True)
    }


def graph_nodes(tensor: torch.Tensor) -> int:
    """Nodes of the graph that ``tensor`` keeps alive, up to a limit.

    >>> x = torch.ones(1, requires_grad=True)
    >>> graph_nodes(x * 2 + 1)
    3
    """
    return len(_graph(tensor))


def reaches_back(tensor: torch.Tensor, number: int) -> bool:
    """Whether the graph of ``tensor`` has a node made before the autograd node ``number``, leaves left aside.

    A graph that only belongs to a longer sequence was made whole in the newest step; one that is never cut was not.

    >>> x = torch.ones(1, requires_grad=True)
    >>> total = x * 2
    >>> number = torch.autograd._get_sequence_nr()
    >>> reaches_back(total + 1, number), reaches_back(x * 3, number)
    (True, False)
    """
    numbers = (node._sequence_nr() for node in _graph(tensor) if node is not None and node.next_functions)
    return min(numbers, default=number) < number


def _graph(tensor: torch.Tensor) -> set[Any]:
    seen: set[Any] = {tensor.grad_fn}
    waiting: list[Any] = [tensor.grad_fn]
    while waiting and len(seen) < _MOST_NODES:
        node = waiting.pop()
        for following, _ in node.next_functions if node is not None else ():
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return seen


def has_numbers(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` is more than the description of one: what torch.compile leaves behind has symbols as sizes."""
    return all(type(size) is int for size in tensor.shape)


def graph_key(tensor: torch.Tensor) -> tuple[str, tuple[int, ...]]:
    """What tells a variable that is bound anew each step from others: its last operation and its shape."""
    return (tensor.grad_fn.name() if tensor.grad_fn is not None else ""), tuple(tensor.shape)


def _measure(kind: type) -> Callable[[Any], int] | None:
    return next((length for base, length in _LENGTHS if issubclass(kind, base)), None)


def _graph_sizes(tensors: Iterable[torch.Tensor], deadline: float) -> dict[tuple[str, tuple[int, ...]], int]:
    sizes: dict[tuple[str, tuple[int, ...]], int] = {}
    newest = sorted(tensors, key=lambda tensor: -tensor.grad_fn._sequence_nr() if tensor.grad_fn is not None else 0)
    left, alike = _NODES_IN_ALL, Counter[tuple[str, tuple[int, ...]]]()
    for tensor in newest:
        if left <= 0 or alike.total() >= _MOST_GRAPHS or time.thread_time() > deadline:
            break
        key = graph_key(tensor)
        if alike[key] == _ALIKE:
            continue
        alike[key] += 1
        nodes = graph_nodes(tensor)
        sizes[key] = max(sizes.get(key, 0), nodes)
        left -= nodes
    return sizes
