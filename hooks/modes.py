"""In which mode the models run: training in evaluation mode and evaluation in training mode, as signals."""

import weakref
from typing import Any

import torch
from torch.nn import Module
from torchvitals.hooks.nested import tensors

EVAL_MODE_PASSES = "eval_mode_passes"
TRAIN_MODE_EVALUATIONS = "train_mode_evaluations"
TRAIN_MODE_ITEMS = "train_mode_items"
DRAWS = 3
"""Answers to one input in a row from which on they are draws: a loss and an accuracy together ask twice."""


class Modes:
    """Counts the forwards of roots whose mode does not fit what is done with them.

    Only roots whose answer depends on the mode are counted: those with dropout or batch normalisation. Who asks again
    and again for an answer to the same input wants its spread, which only training mode has: such an evaluation fits
    (Gal and Ghahramani, "Dropout as a Bayesian approximation", ICML 2016).
    """

    def __init__(self) -> None:
        self._step = -1
        self._run = 0
        """Such forwards since the last step."""
        self._items = 0
        """Rows of their answers: a small validation set is evaluated in one forward."""
        self._asked: weakref.ref[torch.Tensor] | None = None
        """The newest input in training mode, and how many forwards in a row it has had since the last step."""
        self._draws = 0
        self._drawn = False
        self._depends: weakref.WeakKeyDictionary[Module, bool] = weakref.WeakKeyDictionary()

    def called(self, module: Module | None, inputs: Any, output: Any, scalars: dict[str, float], step: int) -> None:
        """``module`` was called without gradients, or in evaluation mode, before ``step``: note what does not fit."""
        if module is None:
            return
        if step != self._step:
            self._step, self._run, self._items = step, 0, 0
            self._draws, self._drawn = 0, False
        name = ""
        if module.training:
            name = TRAIN_MODE_EVALUATIONS
        elif torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors(output)):
            name = EVAL_MODE_PASSES
        if name and self._depends_on_mode(module):
            if module.training and self._are_draws(inputs):
                scalars.pop(name, None)
                scalars.pop(TRAIN_MODE_ITEMS, None)
                return
            self._run += 1
            scalars[name] = max(scalars.get(name, 0.0), float(self._run))
        if name == TRAIN_MODE_EVALUATIONS and name in scalars:
            self._items += next((len(tensor) for tensor in tensors(output) if tensor.dim()), 0)
            scalars[TRAIN_MODE_ITEMS] = max(scalars.get(TRAIN_MODE_ITEMS, 0.0), float(self._items))

    def _are_draws(self, inputs: Any) -> bool:
        """Whether the forwards since the last step ask for the spread of the answers to one input."""
        first = next(tensors(inputs), None)
        same = first is not None and self._asked is not None and self._asked() is first
        self._draws = self._draws + 1 if same else 1
        self._asked = weakref.ref(first) if first is not None else None
        self._drawn |= self._draws >= DRAWS
        return self._drawn

    def _depends_on_mode(self, module: Module) -> bool:
        known = self._depends.get(module)
        if known is None:
            known = self._depends[module] = any(depends_on_mode(part) for part in module.modules())
        return known


def depends_on_mode(part: Module) -> bool:
    """Whether ``part`` itself answers differently in training and in evaluation.

    >>> depends_on_mode(torch.nn.Dropout(0.1)), depends_on_mode(torch.nn.Dropout(0.0))
    (True, False)
    >>> depends_on_mode(torch.nn.BatchNorm1d(2)), depends_on_mode(torch.nn.LayerNorm(2))
    (True, False)
    """
    if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
        return part.track_running_stats
    share = getattr(part, "p", 0.0) if "Dropout" in type(part).__name__ else getattr(part, "dropout", 0.0)
    return isinstance(share, int | float) and share > 0
