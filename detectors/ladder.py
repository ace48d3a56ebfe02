"""A series at every time scale at once, from a few steps to all of a run, in a few hundred bytes."""

import numpy as np
from torchvitals.detectors.block_statistics import Floats, Mask
from torchvitals.detectors.scalars import grown

BLOCKS = 8
RUNGS = 14
"""The longest holds blocks of 32,768 steps."""


class Ladder:
    """Rung k keeps the lowest values of the newest eight blocks of ``steps`` × 2^k steps, for every subject.

    float32: 452 bytes per subject; a block that nobody spoke in is NaN.

    >>> ladder = Ladder()
    >>> for step in range(65):
    ...     turned = ladder.add(step, np.array([float(step)]), np.array([True]))
    >>> ladder.rungs[1][0].tolist(), turned
    ([0.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0], [0, 1, 2, 3, 4])
    """

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps
        self.rungs = [np.full((0, BLOCKS), np.nan, dtype=np.float32) for _ in range(RUNGS)]
        self._low = np.full(0, np.nan, dtype=np.float32)
        self._block = -1
        """The one in progress."""
        self._blocks = 0

    def steps_of(self, rung: int) -> int:
        """In a block of it."""
        return self.steps << rung

    def lowest(self, subject: int) -> float:
        """Of all that is remembered of one subject."""
        return float(min(np.fmin.reduce(lows[subject]) for lows in self.rungs if np.isfinite(lows[subject]).any()))

    def add(self, step: int, values: Floats, usable: Mask) -> list[int]:
        """Take the values of one step; the rungs whose newest block ended just before it."""
        self._grow(len(values))
        block = step // self.steps
        turned: list[int] = []
        if self._block >= 0 and block > self._block:
            turned = self._turn()
            for _ in range(min(block - self._block - 1, BLOCKS)):
                turned = sorted({*turned, *self._turn()})
        self._block = max(block, self._block)
        np.fmin(self._low, np.where(usable, values, np.nan), out=self._low, casting="same_kind")
        return turned

    def _turn(self) -> list[int]:
        """End the block in progress."""
        newest = self._low.copy()
        self._low.fill(np.nan)
        self._blocks += 1
        turned = []
        for rung, lows in enumerate(self.rungs):
            lows[:, :-1] = lows[:, 1:]
            lows[:, -1] = newest
            turned.append(rung)
            if (self._blocks >> rung) % 2:
                break
            newest = np.fmin(lows[:, -1], lows[:, -2])
        return turned

    def _grow(self, count: int) -> None:
        if count > len(self._low):
            nan = float("nan")
            self._low = grown(self._low, count, nan)
            self.rungs = [grown(lows, count, nan) for lows in self.rungs]
