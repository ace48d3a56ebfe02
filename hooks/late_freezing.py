"""Layers that a model freezes in its own ``train()``, called only after they had been trained (mmpretrain-702).

Who begins to train without calling ``train()`` trains the layers that are declared frozen, and batch statistics with
them, until the first evaluation is over. Freezing in the middle is sound where the job does it, or asks for it.
"""

import weakref
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, FunctionType
from typing import Any

import torch
from torch.nn import Module

FREEZING = frozenset({"requires_grad", "requires_grad_"})
SIMPLE = (bool, int, float, str, type(None))
"""Types of attributes by which a module is told what to freeze."""


class LateFreezing:
    """Looks, in sampled steps, for trained parameters that no longer require a gradient.

    Args:
        tell: is called with the parameter, how many there are, and the class that froze them.
    """

    def __init__(self, tell: Callable[[torch.Tensor, int, str], None]) -> None:
        self._tell = tell
        self._trained: dict[int, weakref.ref[torch.Tensor]] = {}
        """What has had a gradient, by its id."""
        self._asked: weakref.WeakKeyDictionary[Module, dict[str, Any]] | None = None
        """The modules that freeze in ``train()``, and how they were set when the training began."""

    def look(self, parameters: Sequence[torch.Tensor], models: Callable[[], Iterable[Module]]) -> None:
        """``parameters`` are about to be stepped; ``models`` gives those that are trained."""
        if self._asked is None:
            parts = [part for model in models() for part in model.modules()]
            self._asked = weakref.WeakKeyDictionary({part: _settings(part) for part in parts if freezes(type(part))})
        if not self._asked:
            return
        flipped = [p for p in parameters if not p.requires_grad and id(p) in self._trained]
        for parameter in parameters:
            if parameter.requires_grad and parameter.grad is not None:
                self._trained[id(parameter)] = weakref.ref(parameter)
        flipped = [p for p in flipped if self._trained.pop(id(p))() is p]
        if flipped:
            self._judge({id(p): p for p in flipped})

    def _judge(self, flipped: dict[int, torch.Tensor]) -> None:
        for module, before in (self._asked or {}).items():
            own = [flipped[id(p)] for p in module.parameters() if id(p) in flipped]
            if own and _settings(module) == before:
                self._tell(own[0], len(own), type(module).__name__)
                return


def freezes(kind: type[Module]) -> bool:
    """Whether ``train()`` of modules of this class sets ``requires_grad``, itself or in a method that it calls.

    >>> class Frozen(torch.nn.Linear):
    ...     def train(self, mode=True):
    ...         self.weight.requires_grad = False
    ...         return super().train(mode)
    >>> freezes(Frozen), freezes(torch.nn.Linear)
    (True, False)
    """
    train = kind.train
    if train is Module.train or not isinstance(train, FunctionType):
        return False
    names = _names(train.__code__)
    called = (getattr(kind, name, None) for name in names if not hasattr(Module, name))
    return bool(FREEZING & names) or any(
        FREEZING & _names(method.__code__) for method in called if isinstance(method, FunctionType)
    )


def _names(code: CodeType) -> set[str]:
    inner = (_names(part) for part in code.co_consts if isinstance(part, CodeType))
    return set(code.co_names).union(*inner)


def _settings(module: Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name != "training" and isinstance(value, SIMPLE)}
