"""The largest magnitude a series has shown so far, with the newest steps held back.

The measure behind :class:`~torchvitals.detectors.explosion.Explosion` and its kin. A running maximum needs no
distribution: ten times beyond anything seen is ten times beyond, whatever the noise. Its newest ``lag`` values
are held back, so that a slow rise is compared with what was before the rise and not with itself.
"""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.ring import ALL, NOBODY, Ring, Rows
from torchvitals.detectors.scalars import NORM, TRIPWIRE, Floats, Magnitudes, Mask, grown

UNKNOWN = 1e300
"""The bound of a series that has not begun: nothing but what is not finite exceeds it."""
BLOCKS = 4
"""Of the recent past, besides the one that is settling."""


class Envelope:
    """Of one series, by subject: the largest height (log10 magnitude) of all settled values, and of the recent ones.

    ``lag`` values are held back (in a ring that callers may look at); the recent past is four blocks of half a lag.
    ``floor`` is the smallest reference while fewer than ``lag`` values are known, since a loss that starts at 0
    (distillation, clipped policies) has no scale of its own yet. Only a ``dated`` one keeps the steps of its values.
    State: 4 × (``lag`` + 12) bytes per subject, and 4 × ``lag`` for dates. Blocks of subjects end at different steps,
    so that work is spread out.
    """

    def __init__(self, floor: float = 0.1, lag: int = 32, *, dated: bool = False) -> None:
        self.lag = lag
        self.block = lag // 2
        self.floor = np.log10(floor)
        self.ring = Ring(lag, np.float32)
        self.steps = np.zeros((lag if dated else 0, 0), dtype=np.int32)
        self._largest = np.zeros((2, 0))
        """The bound, and the largest of what has settled in this block."""
        self._blocks = np.zeros((BLOCKS, 0), dtype=np.float32)
        self.young = True
        """Whether any subject may still be within its first ``lag`` values."""

    @property
    def bound(self) -> Floats:
        """Largest settled height; of the values still held back the earliest quarter (at least two) counts."""
        bound: Floats = self._largest[0]
        return bound

    @property
    def known(self) -> NDArray[np.int64]:
        """Values taken so far, by subject."""
        return self.ring.count

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their state."""
        new = subjects - self.ring.subjects
        if new <= 0:
            return
        self.ring.grow(subjects)
        self._largest = np.concatenate([self._largest, np.tile([[UNKNOWN], [-np.inf]], new)], axis=1)
        self._blocks = grown(self._blocks.T, subjects, -np.inf).T
        self.steps = grown(self.steps.T, subjects, -1).T.copy()
        self.young = True

    def recent_bound(self) -> Floats:
        """The largest height of the recent past, the newest ``lag`` values held back."""
        recent = np.maximum(self._blocks.max(axis=0, initial=-np.inf), self._largest[1])
        return np.where(self.known < self.lag + self.block // 4, self.bound, recent)

    def add(self, step: int, height: Floats, use: Mask, tolerance: float | Floats = 2.0) -> None:
        """Take the heights of those in ``use``, all of them finite; the others keep their state.

        A second value more than ``tolerance`` decades above the first is no reference: it is thrown off already.
        """
        rows, slots = self.ring.place(use)
        if rows is NOBODY:
            return
        self._turn(rows)
        old = self.ring.values[slots, rows]  # NaN while there is none, which fmax passes over
        if rows is ALL:
            np.fmax(self._largest, old, out=self._largest)
        else:
            self._largest[:, rows] = np.fmax(self._largest[:, rows], old)
        self.ring.values[slots, rows] = height[rows]
        if len(self.steps):
            self.steps[slots, rows] = step
        if self.young:
            self._start(rows, tolerance)

    def _turn(self, rows: Rows) -> None:
        """End the block of those whose values so far, and their number, are a multiple of its length."""
        before = self.ring.counted(rows) - 1
        if isinstance(before, int):
            start = -before % self.block
            if start >= self.ring.subjects:
                return
            turn = np.arange(start, self.ring.subjects, self.block)
        else:
            places = np.arange(self.ring.subjects)[rows]
            ends = (before + places) % self.block == 0
            turn, before = places[ends], before[ends]
        if len(turn):
            self._blocks[(before + turn) // self.block % BLOCKS, turn] = self._largest[1, turn]
            self._largest[1, turn] = -np.inf

    def _start(self, rows: Rows, tolerance: float | Floats) -> None:
        """The first values of a series that is still within its first ``lag``, up to the first leap."""
        places = np.arange(self.ring.subjects)[rows]
        count = np.broadcast_to(self.ring.counted(rows), places.shape)
        young = places[count < self.lag]
        self.young = bool((self.known < self.lag).any())
        if not len(young):
            return
        ring, known = self.ring.values[:, young], np.maximum(2, self.known[young] // 4)
        limit = ring[0] + np.broadcast_to(tolerance, self.bound.shape)[young]
        leapt = np.logical_or.accumulate(ring > limit, axis=0)
        use = (np.arange(self.lag)[:, None] < known) & ~np.isnan(ring) & ~leapt
        highest = np.where(use, ring, -np.inf).max(axis=0, initial=-np.inf)
        self._largest[0, young] = np.maximum(highest, self.floor)

    def since(self, row: int, level: float, step: int) -> int:
        """The earliest held-back step whose height exceeded ``level``; ``step`` when none did."""
        above = self.steps[(self.ring.values[:, row] > level) & (self.steps[:, row] >= 0), row]
        return int(above.min(initial=step))


class Steepness:
    """Decades by which the newest gradient exceeds the largest so far, the larger of two norms; held when not sampled.

    The whole norm is sampled and may miss the one step that counts; the trip-wire's is there at every step.
    """

    def __init__(self, unknown: float) -> None:
        self.unknown = unknown
        self.decades = np.zeros(0)
        """``unknown`` while no gradient was ever seen."""
        self._norms = {NORM: Envelope(), TRIPWIRE: Envelope()}

    def grow(self, subjects: int) -> None:
        """Make room for new subjects."""
        self.decades = grown(self.decades, subjects, self.unknown)
        for envelope in self._norms.values():
            envelope.grow(subjects)

    def take(self, step: int, size: Magnitudes) -> Floats:
        """Take the gradients of one step."""
        excess = [size.heights[row] - envelope.bound for row, envelope in self._norms.items()]
        np.copyto(self.decades, np.fmax(*excess), where=size.sent[NORM] | size.sent[TRIPWIRE])
        for row, envelope in self._norms.items():
            envelope.add(step, size.heights[row], size.usable[row])
        return self.decades
