"""The largest magnitude a series has shown so far, with the newest steps held back.

The measure behind :class:`~torchvitals.detectors.explosion.Explosion` and its kin. A running maximum needs no
distribution: ten times beyond anything seen is ten times beyond, whatever the noise. Its newest ``lag`` values
are held back, so that a slow rise is compared with what was before the rise and not with itself.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.scalars import Kind, grown

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]
TINY = np.log10(1e-300)
"""Heights below it are taken as its own: exact zeros stay finite."""
BLOCKS = 4
"""Of the recent past, besides the one that is settling."""


class Envelope:
    """Per series and subject: the largest height (log10 magnitude) of all settled values, and of the recent ones.

    ``lag`` values are held back (in a ring that callers may look at); the recent past is four blocks of half a lag.
    ``floors``, one for each series, are the smallest references while fewer than ``lag`` values are known, since a
    loss that starts at 0 (distillation, clipped policies) has no scale of its own yet. A row of the state is one
    subject of one series, those of the first series first; only of these the steps are kept. State: 4 × (``lag`` + 8)
    bytes per row and 4 × ``lag`` per subject. Blocks of subjects end at different steps, so that work is spread out.
    """

    def __init__(self, floors: Sequence[float] = (0.1,), lag: int = 32) -> None:
        self.lag = lag
        self.block = lag // 2
        self.floors = np.log10(floors)
        self.count = np.zeros(0, dtype=np.int64)
        self.phase = np.zeros(0, dtype=np.int64)
        self.first = np.zeros(0)
        self.highest = np.zeros(0)
        """Of what had settled before this block."""
        self.settled = np.zeros(0)
        """Of what has settled in this block."""
        self.blocks = np.zeros((0, BLOCKS), dtype=np.float32)
        self.ring = np.zeros((0, lag), dtype=np.float32)
        self.steps = np.zeros((0, lag), dtype=np.int32)

    @property
    def known(self) -> NDArray[np.int64]:
        """Values taken so far: (series, subjects)."""
        return self.count.reshape(len(self.floors), -1)

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their state."""
        if subjects * len(self.floors) <= len(self.count):
            return
        self.count = self._wider(self.count, subjects, 0)
        self.phase = np.tile(np.arange(subjects) % self.block, len(self.floors))
        self.first = self._wider(self.first, subjects, np.inf)
        self.highest = self._wider(self.highest, subjects, -np.inf)
        self.settled = self._wider(self.settled, subjects, -np.inf)
        self.blocks = self._wider(self.blocks, subjects, -np.inf)
        self.ring = self._wider(self.ring, subjects, np.nan)
        self.steps = grown(self.steps, subjects, -1)

    def _wider(self, state: NDArray[Kind], subjects: int, fill: float) -> NDArray[Kind]:
        series, rest = len(self.floors), state.shape[1:]
        wide = np.full((series, subjects, *rest), fill, dtype=state.dtype)
        old = state.reshape(series, len(state) // series, *rest)
        wide[:, : old.shape[1]] = old
        return wide.reshape(-1, *rest)

    def bound(self) -> Floats:
        """Largest settled height, (series, subjects); the earliest quarter (at least two) counts as settled."""
        return np.maximum(self.first, np.maximum(self.highest, self.settled)).reshape(len(self.floors), -1)

    def recent_bound(self) -> Floats:
        """The largest height of the recent past, the newest ``lag`` values held back."""
        recent = np.maximum(self.blocks.max(axis=1, initial=-np.inf), self.settled)
        young = self.known < self.lag + self.block // 4
        return np.where(young, self.bound(), recent.reshape(young.shape))

    def add(self, step: int, height: Floats, present: NDArray[np.bool_], tolerance: float | Floats = 2.0) -> None:
        """Take (series, subjects) heights of those present, exact zeros as -inf; the others keep their state.

        A second value more than ``tolerance`` decades above the first is no reference: it is thrown off already.
        """
        rows = (present & (height < np.inf)).reshape(-1).nonzero()[0]
        count = self.count[rows]
        turn = rows[(count + self.phase[rows]) % self.block == 0]
        if len(turn):
            self._turn(turn)
        slot = count % self.lag
        self.settled[rows] = np.fmax(self.settled[rows], self.ring[rows, slot])
        self.ring[rows, slot] = np.maximum(height.reshape(-1)[rows], TINY)
        losses = np.searchsorted(rows, len(self.steps))
        self.steps[rows[:losses], slot[:losses]] = step
        count += 1
        self.count[rows] = count
        young = rows[count < self.lag]
        if len(young):
            self._start(young, np.broadcast_to(tolerance, height.shape).reshape(-1)[young])

    def _turn(self, rows: Rows) -> None:
        """End a block of settled values."""
        ended = self.settled[rows]
        self.highest[rows] = np.maximum(self.highest[rows], ended)
        self.blocks[rows, (self.count[rows] + self.phase[rows]) // self.block % BLOCKS] = ended
        self.settled[rows] = -np.inf

    def _start(self, rows: Rows, tolerance: Floats) -> None:
        """The first values of a series that is still within its first ``lag``, up to the first leap."""
        ring, known = self.ring[rows], np.maximum(2, self.count[rows] // 4)
        leapt = np.logical_or.accumulate(ring > ring[:, :1] + tolerance[:, None], axis=1)
        use = (np.arange(self.lag) < known[:, None]) & ~np.isnan(ring) & ~leapt
        floor = self.floors[rows // (len(self.count) // len(self.floors))]
        self.first[rows] = np.maximum(np.where(use, ring, -np.inf).max(axis=1, initial=-np.inf), floor)

    def since(self, row: int, level: float, step: int) -> int:
        """The earliest held-back step whose height in the first series exceeded ``level``; ``step`` when none did."""
        above = self.steps[row][(self.ring[row] > level) & (self.steps[row] >= 0)]
        return int(above.min(initial=step))
