"""A loop that asks its loader for a new iterator at each step trains on the first batch for ever."""

import weakref
from typing import Any

import torch
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.source import line_of, of_library, user_frames
from torchvitals.hooks.worker_batches import sample_of

ROUNDS = 20
"""Iterators in a row that gave one batch, the same each time; a dry run or a look at the data takes a few."""


class FirstBatches:
    """Looks at the first batch of each iterator of the job's loaders, and at what the model was called with.

    ``next(iter(loader))`` in the loop is a new iterator at each step: without shuffling all of them begin with the same
    batch, and the others are never seen. A batch that is taken once and learnt by heart on purpose has one iterator, as
    a loader of a single batch needs no other; and a trainer that is told to overfit asks for them itself.
    """

    def __init__(self) -> None:
        self._iterator: weakref.ref[Any] | None = None
        self._first = b""
        self._items = 0
        self._rounds = 0
        self._trained = False
        """Whether the model has been called with a batch of that size since."""
        self._over = False

    def loaded(self, iterator: Any, batch: Any) -> dict[str, Any] | None:
        """``iterator`` gave ``batch``; the answer tells of a loader that never gets beyond its first."""
        if self._over:
            return None
        if self._iterator is not None and self._iterator() is iterator:
            self._rounds = 0  # it goes on to its second batch
            return None
        self._iterator = weakref.ref(iterator)
        tensor = next(tensors(batch), None)
        batches = _batches(iterator)
        if batches < 2 or tensor is None or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            self._rounds = 0
            return None
        first = sample_of(tensor)
        self._rounds = self._rounds + 1 if first == self._first else 0
        self._first, self._items = first, len(tensor) if tensor.dim() else 1
        if self._rounds < ROUNDS or not self._trained:
            return None
        self._over = True
        return _told(batches)

    def trained_on(self, tensor: torch.Tensor) -> None:
        """The model was called with ``tensor`` to train it: not always the loader's own, but one of as many rows."""
        if self._rounds and tensor.dim() and len(tensor) == self._items:
            self._trained = True


def _batches(iterator: Any) -> int:
    """How many the loader has; 0 where nobody knows."""
    try:
        return len(iterator._index_sampler)
    except (AttributeError, TypeError):  # a stream
        return 0


def _told(batches: int) -> dict[str, Any] | None:
    frame = next(user_frames(), None)
    if frame is None or of_library(frame.f_code.co_filename):
        return None
    return {"line": str(line_of(frame)), "batches": batches, "rounds": ROUNDS}
