"""A series at every time scale at once, from a few steps to all of a run, in a few hundred bytes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.scalars import Floats, grown

BLOCKS = 8
RUNGS = 14
"""The longest holds blocks of 32,768 steps."""


class Ladder:
    """Rung k keeps the lowest values of the newest eight blocks of ``steps`` × 2^k steps, for every subject.

    float32: 456 bytes per subject; a block that nobody spoke in is NaN.

    >>> ladder = Ladder()
    >>> for step in range(65):
    ...     turned = ladder.add(step, np.array([float(step)]))
    >>> ladder.blocks(1, [0])[0].tolist(), turned
    ([0.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0], [0, 1, 2, 3, 4])
    """

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps
        self._rungs = np.full((RUNGS, BLOCKS, 0), np.nan, dtype=np.float32)
        self._oldest = [0] * RUNGS
        """Place of the oldest block on each rung."""
        self._low = np.full(0, np.nan)
        self._block = -1
        """The one in progress."""
        self._blocks = 0

    def steps_of(self, rung: int) -> int:
        """In a block of it."""
        return self.steps << rung

    def lowest(self, subject: int) -> float:
        """Of all that is remembered of one subject."""
        return float(np.nanmin(self._rungs[:, :, subject]))

    def blocks(self, rung: int, subjects: Sequence[int] | NDArray[np.intp]) -> Floats:
        """Those of one rung, (subjects, blocks), the oldest first."""
        order = np.arange(self._oldest[rung], self._oldest[rung] + BLOCKS) % BLOCKS
        lows: Floats = self._rungs[rung][order][:, subjects].T.astype(np.float64)
        return lows

    def rise(self, rung: int) -> NDArray[np.float32]:
        """From the oldest block to the newest, by subject."""
        oldest = self._oldest[rung]
        return np.asarray(self._rungs[rung, oldest - 1] - self._rungs[rung, oldest])

    def add(self, step: int, values: Floats) -> list[int]:
        """Take the values of one step, NaN where there is none; the rungs whose newest block ended just before it."""
        self._grow(len(values))
        block = step // self.steps
        turned: list[int] = []
        if self._block >= 0 and block > self._block:
            turned = self._turn()
            for _ in range(min(block - self._block - 1, BLOCKS)):
                turned = sorted({*turned, *self._turn()})
        self._block = max(block, self._block)
        np.fmin(self._low, values, out=self._low)
        return turned

    def _turn(self) -> list[int]:
        """End the block in progress."""
        newest = self._low.astype(np.float32)
        self._low.fill(np.nan)
        self._blocks += 1
        turned = []
        for rung, lows in enumerate(self._rungs):
            place = self._oldest[rung]
            lows[place] = newest
            self._oldest[rung] = (place + 1) % BLOCKS
            turned.append(rung)
            if (self._blocks >> rung) % 2:
                break
            newest = np.fmin(newest, lows[place - 1])
        return turned

    def _grow(self, count: int) -> None:
        if count > len(self._low):
            fresh = np.full((RUNGS, BLOCKS, count - len(self._low)), np.nan, dtype=np.float32)
            self._rungs = np.concatenate([self._rungs, fresh], axis=2)
            self._low = grown(self._low, count, np.nan)
