"""A series at every time scale at once, from a few steps to all of a run, in a few hundred bytes."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.ring import ALL, Rows
from torchvitals.detectors.scalars import Floats, grown

BLOCKS = 8
RUNGS = 14
"""The longest holds blocks of 32,768 steps."""
OWN = 5
"""Blocks that a rung keeps: its newest three are pairs of those of the rung below."""
Singles = NDArray[np.float32]


class Ladder:
    """Rung k has the lowest values of the newest eight blocks of ``steps`` × 2^k steps, for every subject.

    float32: 300 bytes per subject; a block that nobody spoke in is NaN. A rung may be looked at when its newest block
    has just ended.

    >>> ladder = Ladder()
    >>> for step in range(65):
    ...     for turned in ladder.turns(step):
    ...         blocks = ladder.blocks(1, [0])[0].tolist() if 1 in turned else []
    ...     ladder.add(np.array([float(step)]))
    >>> blocks, turned
    ([0.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0], [0, 1, 2, 3, 4])
    """

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps
        self._lowest = np.full((BLOCKS, 0), np.nan, dtype=np.float32)
        """The blocks of the lowest rung, and the older ones of those above it."""
        self._older = np.full((RUNGS - 1, OWN, 0), np.nan, dtype=np.float32)
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
        return float(np.nanmin(np.append(self._lowest[:, subject], self._older[:, :, subject])))

    def blocks(self, rung: int, subjects: Sequence[int] | NDArray[np.intp]) -> Floats:
        """Those of one rung, (subjects, blocks), the oldest first."""
        rows = np.asarray(subjects, dtype=np.intp)
        return np.stack([self._aged(rung, age, rows) for age in reversed(range(BLOCKS))], axis=1).astype(np.float64)

    def rise(self, rung: int) -> Singles:
        """From the oldest block to the newest, by subject."""
        return np.asarray(self._aged(rung, 0) - self._aged(rung, BLOCKS - 1))

    def turns(self, step: int) -> Iterator[list[int]]:
        """Go on to ``step``; for each block that ended before it the rungs whose newest block it ended."""
        block = step // self.steps
        if self._block >= 0:
            for _ in range(min(block - self._block, BLOCKS + 1)):
                yield self._turn()
        self._block = max(block, self._block)

    def add(self, values: Floats) -> None:
        """Take the values of one step, NaN where there is none."""
        self._grow(len(values))
        np.fmin(self._low, values, out=self._low)

    def _turn(self) -> list[int]:
        """End the block in progress."""
        self._lowest[self._oldest[0]] = self._low
        self._oldest[0] = (self._oldest[0] + 1) % BLOCKS
        self._low.fill(np.nan)
        self._blocks += 1
        turned = [0]
        while turned[-1] < RUNGS - 1 and not (self._blocks >> turned[-1]) % 2:
            below = turned[-1]
            pair = np.fmin(self._aged(below, BLOCKS - 2), self._aged(below, BLOCKS - 1))
            self._older[below, self._oldest[below + 1]] = pair
            self._oldest[below + 1] = (self._oldest[below + 1] + 1) % OWN
            turned.append(below + 1)
        return turned

    def _aged(self, rung: int, age: int, rows: Rows = ALL) -> Singles:
        """A block of a rung that has just turned; 0 is the newest."""
        if not rung:
            lows: Singles = self._lowest[(self._oldest[0] - 1 - age) % BLOCKS, rows]
        elif age >= BLOCKS - OWN:
            lows = self._older[rung - 1, (self._oldest[rung] + BLOCKS - 1 - age) % OWN, rows]
        else:
            lows = np.fmin(self._aged(rung - 1, 2 * age, rows), self._aged(rung - 1, 2 * age + 1, rows))
        return lows

    def _grow(self, count: int) -> None:
        new = count - len(self._low)
        if new > 0:
            nan = np.full((RUNGS - 1, max(OWN, BLOCKS), new), np.nan, dtype=np.float32)
            self._lowest = np.concatenate([self._lowest, nan[0, :BLOCKS]], axis=1)
            self._older = np.concatenate([self._older, nan[:, :OWN]], axis=2)
            self._low = grown(self._low, count, np.nan)
