"""The largest magnitude a series has shown so far, with the newest steps held back.

The measure behind :class:`~torchvitals.detectors.explosion.Explosion` and its kin. A running maximum needs no
distribution: ten times beyond anything seen is ten times beyond, whatever the noise. Its newest ``lag`` values
are held back, so that a slow rise is compared with what was before the rise and not with itself.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TINY = 1e-300
"""Logarithms of magnitudes below it are taken as its own: exact zeros stay finite."""


class Envelope:
    """Per subject: the largest log10 magnitude of all settled values, and of the recent ones.

    ``lag`` values are held back (in a ring that callers may look at); ``recent`` is the length of the recent past
    in steps, kept as four block maxima; ``floor`` is the smallest reference while fewer than ``lag`` values are
    known, since a loss that starts at 0 (distillation, clipped policies) has no scale of its own yet.
    State: 2 × ``lag`` + 11 floats per subject.
    """

    def __init__(self, lag: int = 32, recent: int = 64, floor: float = 0.1) -> None:
        self.lag = lag
        self.block = max(1, recent // 4)
        self.floor = np.log10(floor)
        self.count = np.zeros(0, dtype=np.int64)
        self.highest = np.zeros(0)
        self.first = np.zeros(0)
        self.blocks = np.zeros((0, 5))
        self.ring = np.zeros((0, lag))
        self.steps = np.zeros((0, lag), dtype=np.int64)

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their state."""
        new = subjects - len(self.count)
        if new <= 0:
            return
        self.count = np.concatenate([self.count, np.zeros(new, dtype=np.int64)])
        self.highest = np.concatenate([self.highest, np.full(new, -np.inf)])
        self.first = np.concatenate([self.first, np.full(new, np.inf)])
        self.blocks = np.concatenate([self.blocks, np.full((new, 5), -np.inf)])
        self.ring = np.concatenate([self.ring, np.full((new, self.lag), np.nan)])
        self.steps = np.concatenate([self.steps, np.full((new, self.lag), -1, dtype=np.int64)])

    def bound(self) -> Floats:
        """Log10 of the largest settled magnitude; the earliest quarter (at least two) counts as settled."""
        bound: Floats = np.maximum(self.first, self.highest)
        return bound

    def recent_bound(self) -> Floats:
        """Log10 of the largest magnitude of the recent past, the newest ``lag`` values held back."""
        recent = self.blocks.max(axis=1, initial=-np.inf)
        return np.where(self.count < self.lag + self.block // 4, self.bound(), recent)

    def _early(self, rows: NDArray[np.int64], tolerance: Floats) -> Floats:
        """The first values of a series that is still within its first ``lag``, up to the first leap."""
        ring, known = self.ring[rows], np.maximum(2, self.count[rows] // 4)
        leapt = np.logical_or.accumulate(ring > ring[:, :1] + tolerance[:, None], axis=1)
        use = (np.arange(self.lag) < known[:, None]) & ~np.isnan(ring) & ~leapt
        early: Floats = np.maximum(np.where(use, ring, -np.inf).max(axis=1, initial=-np.inf), self.floor)
        return early

    def add(self, step: int, magnitude: Floats, present: NDArray[np.bool_], tolerance: float | Floats = 2.0) -> None:
        """Take the finite magnitudes of those present; the rest of the subjects keep their state.

        A second value more than ``tolerance`` decades above the first is no reference: it is thrown off already.
        """
        rows = np.flatnonzero(present & np.isfinite(magnitude))
        slot = self.count[rows] % self.lag
        leaving = self.ring[rows, slot]
        settled = rows[~np.isnan(leaving)]
        leaving = leaving[~np.isnan(leaving)]
        self.highest[settled] = np.maximum(self.highest[settled], leaving)
        turn = settled[self.count[settled] % self.block == 0]
        self.blocks[turn] = np.roll(self.blocks[turn], 1, axis=1)
        self.blocks[turn, 0] = -np.inf
        self.blocks[settled, 0] = np.maximum(self.blocks[settled, 0], leaving)
        self.ring[rows, slot] = np.log10(np.maximum(magnitude[rows], TINY))
        self.steps[rows, slot] = step
        self.count[rows] += 1
        young = rows[self.count[rows] < self.lag]
        self.first[young] = self._early(young, np.broadcast_to(tolerance, self.count.shape)[young])

    def since(self, row: int, level: float, step: int) -> int:
        """The earliest held-back step whose magnitude exceeded ``level``; ``step`` when none did."""
        above = self.steps[row][(self.ring[row] > level) & (self.steps[row] >= 0)]
        return int(above.min(initial=step))
