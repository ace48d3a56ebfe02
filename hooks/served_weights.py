"""The weights of a service between two requests: a reload that put others in their place, in part or as a whole."""

import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import Module
from torchvitals.hooks.weight_marks import markable, middle_element


class _Mark(NamedTuple):
    """A parameter by its path, where its memory was, a view of its middle element, and what that was."""

    name: str
    weight: torch.Tensor
    memory: int
    element: torch.Tensor
    value: float


class ServedWeights:
    """Watches one element of many weights of a model that answers requests and is not trained.

    The first and the last weight are looked at before each request (1 µs), as a reload writes to all of them and a new
    head to the last; the others now and then. Weights on a device, which would have to be waited for, are not.

    Args:
        tell: is called with the details of what was replaced.
        most_marks: weights that are marked, spread over the model.
        every: requests between two looks at all of them.
        tries: requests before the first look: what is built, tried out and loaded meanwhile is no service yet.
        most_told: times after which nothing more is told: a model that learns from its requests is no surprise.
    """

    def __init__(
        self,
        tell: Callable[[dict[str, Any]], None],
        *,
        most_marks: int = 64,
        every: int = 64,
        tries: int = 16,
        most_told: int = 8,
    ) -> None:
        self._tell = tell
        self._most_marks, self._every, self._tries, self._left = most_marks, every, tries, most_told
        self._module: weakref.ref[Module] | None = None
        self._marks: list[_Mark] = []
        self._ends: list[_Mark] = []
        """The first and the last of them."""
        self._looked = 0
        """The request before which all of them were looked at last."""

    def answered(self, module: Module | None, request: int) -> None:
        """``module`` has answered the ``request``-th request, counted from 1."""
        if module is None or request < self._tries or not self._left:
            return
        if self._module is None:
            self._module = weakref.ref(module, self._forget)
            self._keep(module, request)
        elif self._module() is module and (any(map(_moved, self._ends)) or request - self._looked >= self._every):
            self._look(module, request)

    def _forget(self, _module: object) -> None:
        """The model is gone, and its weights shall go with it."""
        self._module, self._marks, self._ends = None, [], []

    def _look(self, module: Module, request: int) -> None:
        before = {mark.name: mark.value for mark in self._marks}
        since = self._looked
        self._keep(module, request)
        both = [mark for mark in self._marks if mark.name in before]
        others = [mark.name for mark in both if not _alike(mark.value, before[mark.name])]
        if others:
            self._left -= 1
            self._tell(
                {
                    "request": request - 1,
                    "since": since,
                    "parameters": others[:8],
                    "of": len(both),
                    "count": len(others),
                }
            )

    def _keep(self, module: Module, request: int) -> None:
        fit = [(name, weight) for name, weight in module.named_parameters() if markable(weight)]
        spread = fit[:: -(-len(fit) // self._most_marks) or 1]
        if fit and spread[-1] is not fit[-1]:
            spread.append(fit[-1])
        self._marks = [_mark(name, weight) for name, weight in spread]
        self._ends = [self._marks[0], self._marks[-1]] if self._marks else []
        self._looked = request


def _mark(name: str, weight: torch.Tensor) -> _Mark:
    element = middle_element(weight)
    return _Mark(name, weight, weight.data_ptr(), element, element.item())


def _moved(mark: _Mark) -> bool:
    return mark.weight.data_ptr() != mark.memory or not _alike(mark.element.item(), mark.value)


def _alike(one: float, other: float) -> bool:
    """NaN is like itself here: it has stayed what it was."""
    return one == other or (math.isnan(one) and math.isnan(other))
