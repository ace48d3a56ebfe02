"""Batch sizes: a batch of another size is another kind of step, with which no time can be compared."""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import Floats
from torchvitals.detectors.scalars import grown, single

MOST_STEPS = 250
"""Steps in a row with another size that are counted."""


class BatchSizes:
    """Says whose batches have had another size for more than ``lasting`` steps in a row.

    Args:
        resized: items in a batch over those before, or the reverse.
        lasting: steps; the last batch of an epoch is one.

    >>> sizes = BatchSizes(resized=1.15, lasting=2)
    >>> sizes.grow(1)
    >>> [sizes.take(np.array([items])).tolist() for items in (32.0, 20.0, 32.0, 64.0, 64.0, 64.0)]
    [[], [], [], [], [], [0]]

    """

    def __init__(self, *, resized: float, lasting: int) -> None:
        self.resized, self.lasting = resized, lasting
        self._items = np.full(0, np.nan, dtype=np.float32)
        """In a batch as it has been, and for how many steps there have been others."""
        self._differs = np.zeros(0, dtype=np.uint8)
        self._resizing = False

    def take(self, items: Floats) -> NDArray[np.intp]:
        """Take the sizes of one step, NaN where none was told; whose size is another from now on."""
        if not self._resizing and not np.count_nonzero(items != self._items):
            return np.zeros(0, dtype=np.intp)
        known = (items > 0) & (items < np.inf)
        fresh = known & np.isnan(self._items)
        np.copyto(self._items, single(items), where=fresh)
        ratio = np.divide(items, self._items, out=np.ones_like(items), where=known)
        differs = (ratio > self.resized) | (ratio < 1 / self.resized)
        again = np.where(differs, np.minimum(self._differs, MOST_STEPS) + 1, 0).astype(np.uint8)
        self._differs = np.where(known, again, self._differs)
        self._resizing = bool(self._differs.any())
        renewed = np.flatnonzero(self._differs > self.lasting)
        self._items[renewed] = items[renewed]
        self._differs[renewed] = 0
        return renewed

    def grow(self, ranks: int) -> None:
        """Make room for new ranks."""
        self._items = grown(self._items, ranks, float("nan"))
        self._differs = grown(self._differs, ranks)
