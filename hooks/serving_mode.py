"""A service that answers in training mode: dropout drops, and batch norms learn from whoever asks."""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch.nn import Module
from torchvitals.hooks.modes import depends_on_mode
from torchvitals.hooks.nested import tensors

if TYPE_CHECKING:
    import torch

PART = 8
"""Times its own size that the memory has in which an input lies, where it is a part of a set that is held."""
BEGINS = 8
"""Numbers by which an input is known again."""
MOST_KNOWN = 1024
"""Inputs that are known again: behind them an answer in evaluation mode costs nothing more."""


class ServingMode:
    """Watches the mode in which requests are answered, until it has been told.

    Two services mean it: one that asks again and again for an answer to the same input wants its spread (Gal and
    Ghahramani, "Dropout as a Bayesian approximation", ICML 2016), and one whose batch norms have no momentum gathers
    their statistics (``torch.optim.swa_utils.update_bn``).

    Args:
        tell: is called once, with the first such request, how many there were, and the layer that answers otherwise.
        requests: in a row, when the process ends; a model is tried out, warmed up and exported within fewer.
        certain: in a row, while it goes on: a training that gathers statistics first, or plays to fill a buffer, makes
            its optimizer after some hundred forwards.
        settled: requests in evaluation mode that must have been before. In a process that has trained, training mode
            alone may be left from that; a service that had left it and is in it again has been put there.
        asked_before: share of the requests in training mode that were asked before, or are parts of a set that is
            held: in a process that has trained, draws over its test set, or an adaptation to it.
    """

    def __init__(
        self,
        tell: Callable[[int, int, str], None],
        *,
        requests: int = 32,
        certain: int = 512,
        settled: int = 0,
        asked_before: float = 0.25,
    ) -> None:
        self._tell = tell
        self._settles, self._settled = settled > 0, settled
        self._asked_before = asked_before
        self._known: set[tuple[Any, ...]] = set()
        """How inputs begin, of a process that has trained."""
        self._again = 0
        self._requests, self._certain = requests, certain
        self._count = self._last = 0
        self._layer: str | None = None
        """What answers otherwise, as it was when so many had been answered: ``update_bn`` puts the momentum back."""
        self._told = False
        self._asked: weakref.ref[torch.Tensor] | None = None
        self._repeated = False

    def answered(self, module: Module | None, inputs: Any, request: int) -> None:
        """``module`` has answered the ``request``-th request, counted from 1."""
        if module is None or self._told or not (module.training or self._settles):
            self._count = 0
            return
        if self._settles and not module.training and len(self._known) >= MOST_KNOWN:
            self._count = self._again = 0
            return
        first = next(tensors(inputs), None)
        if self._settles and self._unsettled(module, first):
            return
        self._repeated |= first is not None and self._asked is not None and self._asked() is first
        self._asked = weakref.ref(first) if first is not None else None
        self._count, self._last = self._count + 1, request
        if self._count == self._requests:
            self._layer = layer_of_mode(module)
        elif self._count >= self._certain:
            self.ended()

    def _unsettled(self, module: Module, first: "torch.Tensor | None") -> bool:
        """Whether there is nothing to count: an answer in evaluation mode, or too few of them before."""
        again = first is not None and self._asks_again(first)
        if not module.training:
            self._settled -= 1
            self._count = self._again = 0
            return True
        self._again += again
        return self._settled > 0

    def _asks_again(self, first: "torch.Tensor") -> bool:
        if first.device.type != "cpu" or not first.numel():
            return False
        if first.untyped_storage().nbytes() >= PART * first.numel() * first.element_size():
            return True
        begins = (*first.shape, *first.detach().reshape(-1)[:BEGINS].tolist())
        if begins in self._known:
            return True
        if len(self._known) < MOST_KNOWN:
            self._known.add(begins)
        return False

    def ended(self) -> None:
        """It is known that this process serves: it has nothing else to do."""
        if self._told or self._count < self._requests:
            return
        self._told = True
        repeated = self._repeated or self._again > self._asked_before * self._count
        if self._layer is not None and not repeated:
            self._tell(self._last - self._count, self._count, self._layer)


def layer_of_mode(module: Module) -> str | None:
    """Path of the first layer of ``module`` that answers otherwise in training mode, and is in it by oversight.

    >>> from torch import nn
    >>> layer_of_mode(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    '1'
    >>> layer_of_mode(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, momentum=None)))
    """
    at_work = [(name, part) for name, part in module.named_modules() if part.training and depends_on_mode(part)]
    if any(getattr(part, "momentum", 0.0) is None for _, part in at_work):
        return None  # statistics are gathered, whatever else is at work meanwhile
    return next((name or type(part).__name__ for name, part in at_work), None)
