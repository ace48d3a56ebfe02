"""A service that answers in training mode: dropout drops, and batch norms learn from whoever asks."""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch.nn import Module
from torchvitals.hooks.modes import depends_on_mode
from torchvitals.hooks.nested import tensors

if TYPE_CHECKING:
    import torch


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
    """

    def __init__(self, tell: Callable[[int, int, str], None], *, requests: int = 32, certain: int = 512) -> None:
        self._tell = tell
        self._requests, self._certain = requests, certain
        self._count = self._last = 0
        self._layer: str | None = None
        """What answers otherwise, as it was when so many had been answered: ``update_bn`` puts the momentum back."""
        self._told = False
        self._asked: weakref.ref[torch.Tensor] | None = None
        self._repeated = False

    def answered(self, module: Module | None, inputs: Any, request: int) -> None:
        """``module`` has answered the ``request``-th request, counted from 1."""
        if module is None or not module.training or self._told:
            self._count = 0
            return
        first = next(tensors(inputs), None)
        self._repeated |= first is not None and self._asked is not None and self._asked() is first
        self._asked = weakref.ref(first) if first is not None else None
        self._count, self._last = self._count + 1, request
        if self._count == self._requests:
            self._layer = layer_of_mode(module)
        elif self._count >= self._certain:
            self.ended()

    def ended(self) -> None:
        """It is known that this process serves: it has nothing else to do."""
        if self._told or self._count < self._requests:
            return
        self._told = True
        if self._layer is not None and not self._repeated:
            self._tell(self._last - self._count, self._count, self._layer)


def layer_of_mode(module: Module) -> str | None:
    """Path of the first layer of ``module`` that answers otherwise in training mode, and is in it by oversight.

    >>> from torch import nn
    >>> layer_of_mode(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)))
    '1'
    >>> layer_of_mode(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, momentum=None)))
    """
    for name, part in module.named_modules():
        if part.training and depends_on_mode(part) and getattr(part, "momentum", 0.0) is not None:
            return name or type(part).__name__
    return None
