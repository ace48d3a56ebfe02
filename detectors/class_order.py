"""Whether requests come sorted by class: an evaluation that is fed one class after another is no traffic."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

SHARE = 2.0
"""Value of ``feature_role`` for outputs between 0 and 1."""
EXTRAS = 2
"""Entropy and confidence follow the shares of the classes."""


class ClassOrder:
    """Remembers which class the answers of each block were, as far as they were of one class.

    Args:
        blocks: that are remembered.
        pure: mean share of its class from which a block counts as of one class; a mixed one of two has half.
        run: blocks in a row that make a stretch of one class.
        most: share of the remembered blocks that must be pure.

    >>> order = ClassOrder()
    >>> for block in range(16):
    ...     shares = [0.9, 0.1] if block < 8 else [0.2, 0.8]
    ...     order.add(np.array([*shares, 0.4, 0.9]), np.full(4, SHARE))
    >>> order.is_sorted()
    True
    """

    def __init__(self, *, blocks: int = 64, pure: float = 0.6, run: int = 2, most: float = 0.75) -> None:
        self.pure, self.run, self.most = pure, run, most
        self._classes: deque[int] = deque(maxlen=blocks)
        """-1 for a mixed block."""

    def add(self, mean: NDArray[np.float64], role: NDArray[np.float64]) -> None:
        """Take one block: the mean of every entry. Without one distribution over classes nothing is remembered."""
        shares = mean[role == SHARE][:-EXTRAS]
        if len(shares) < 2 or not abs(float(shares.sum()) - 1) < 0.02:
            return
        top = int(np.argmax(shares))
        self._classes.append(top if shares[top] >= self.pure else -1)

    def is_sorted(self) -> bool:
        """Whether nearly all blocks were of one class each, and not all of the same."""
        classes = np.array(self._classes)
        if not len(classes) or np.mean(classes >= 0) < self.most:
            return False
        ends = np.flatnonzero(np.diff(classes, append=-2))
        lengths = np.diff(ends, prepend=-1)
        return len({int(classes[end]) for end in ends[lengths >= self.run] if classes[end] >= 0}) > 1
