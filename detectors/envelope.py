"""The largest magnitude a series has shown so far, with the newest steps held back.

The measure behind :class:`~torchvitals.detectors.explosion.Explosion` and its kin. A running maximum needs no
distribution: ten times beyond anything seen is ten times beyond, whatever the noise. Its newest values
are held back, so that a slow rise is compared with what was before the rise and not with itself.
"""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.loss_past import LAG, LossPast
from torchvitals.detectors.ring import ALL, NOBODY, Ring, Rows
from torchvitals.detectors.scalars import NORM, TRIPWIRE, Floats, Magnitudes, Mask, Reals, grown

UNKNOWN = 6e4
"""The bound of a series that has not begun, as a float16: nothing but what is not finite exceeds it."""
BLOCKS = 4
"""Of the recent past, besides the one that is settling; and of a crest's values that are held back."""
RECENT = 16
"""Values in a block of the recent past, and EARLY ones that the first reference may be taken from."""
EARLY = 8
QUARTER = 7
"""First values of which a crest takes its first reference: a quarter of those that are held back at most."""


def early_bound(first: Reals, known: NDArray[np.int32], tolerance: float | Reals, floor: float) -> Floats:
    """The reference of a series of ``known`` values, fewer than are held back; the ``first`` are (EARLY, subjects).

    The earliest quarter of them (at least two) counts, up to the first leap: a second value more than ``tolerance``
    decades above the first is no reference, it is thrown off already. It is ``floor`` at least, since a loss that
    starts at 0 (distillation, clipped policies) has no scale of its own yet.
    """
    leapt = np.logical_or.accumulate(first > first[0] + tolerance, axis=0)
    use = (np.arange(len(first))[:, None] < np.maximum(2, known // 4)) & ~np.isnan(first) & ~leapt
    highest: Floats = np.where(use, first, -np.inf).max(axis=0, initial=-np.inf)
    return np.maximum(highest, floor)


class Envelope:
    """Of losses, by rank: the largest height (log10 magnitude) of all that have settled, and of the recent ones.

    The newest ``LAG`` are held back, in the past that all detectors share; the recent past is four blocks of half a
    lag. State: 16 bytes per subject. Blocks of subjects end at different steps, so that work is spread out.
    """

    def __init__(self, floor: float = 0.1) -> None:
        self.floor = float(np.log10(floor))
        self._largest = np.zeros((2, 0), dtype=np.float32)
        """The bound, and the largest of what has settled in this block."""
        self._blocks = np.zeros((BLOCKS, 0), dtype=np.float16)
        self.young = True
        """Whether any subject may still be within its first ``LAG`` values."""

    @property
    def bound(self) -> NDArray[np.float32]:
        """Largest settled height; of the values still held back the earliest quarter (at least two) counts."""
        bound: NDArray[np.float32] = self._largest[0]
        return bound

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their state."""
        new = subjects - self._largest.shape[1]
        if new <= 0:
            return
        fresh = np.tile(np.array([[UNKNOWN], [-np.inf]], dtype=np.float32), new)
        self._largest = np.concatenate([self._largest, fresh], axis=1)
        self._blocks = grown(self._blocks.T, subjects, -np.inf).T.copy()
        self.young = True

    def recent_bound(self, known: NDArray[np.int32]) -> NDArray[np.float32]:
        """The largest height of the recent past, of those who have sent so many."""
        recent = np.maximum(self._blocks.max(axis=0, initial=-np.inf), self._largest[1])
        return np.where(known < LAG + RECENT // 4, self.bound, recent)

    def add(self, past: LossPast, tolerance: float | Reals = 2.0, settled: NDArray[np.float32] | None = None) -> None:
        """Take what the newest losses have made settle, or ``settled`` heights in place of them."""
        rows = past.rows
        if rows is NOBODY:
            return
        self._turn(past, rows)
        # NaN, which fmax passes over, until there is one.
        old = past.leaving() if settled is None else settled
        if rows is ALL:
            np.fmax(self._largest, old, out=self._largest)
        else:
            self._largest[:, rows] = np.fmax(self._largest[:, rows], old)
        if self.young:
            self._start(past, rows, tolerance)

    def _turn(self, past: LossPast, rows: Rows) -> None:
        """End the block of those whose values so far, and their number, are a multiple of its length."""
        before = past.counted(rows) - 1
        subjects = self._largest.shape[1]
        if isinstance(before, int):
            first = -before % RECENT
            if first >= subjects:
                return
            turn = np.arange(first, subjects, RECENT)
        else:
            places = np.arange(subjects)[rows]
            ends = (before + places) % RECENT == 0
            turn, before = places[ends], before[ends]
        if len(turn):
            self._blocks[(before + turn) // RECENT % BLOCKS, turn] = self._largest[1, turn]
            self._largest[1, turn] = -np.inf

    def _start(self, past: LossPast, rows: Rows, tolerance: float | Reals) -> None:
        """The first values of a series that is still within its first ``LAG``."""
        known = past.known
        self.young = bool((known < LAG).any())
        places = np.arange(len(known))[rows]
        young = places[(known[places] < LAG) & (known[places] > 0)]
        if not len(young):
            return
        first = np.log10(np.maximum(np.abs(past.first(young, EARLY)), 1e-45))
        limit = np.broadcast_to(tolerance, known.shape)[young]
        self._largest[0, young] = early_bound(first, known[young], limit, self.floor)


class Crest:
    """The same of any series, by its own past: 13 bytes per subject, and 14 more while it is young.

    Its newest 32 to 40 values are held back, as maxima of blocks of eight. Where nothing is judged before they are
    known, the first of them need not be kept (``early``): the largest of the first eight is the first reference.
    """

    def __init__(self, floor: float = 0.1, *, early: bool = True) -> None:
        self.floor, self._early = float(np.log10(floor)), early
        self.bound = np.zeros(0, dtype=np.float16)
        """The largest height that has settled."""
        self._held = Ring(BLOCKS + 1, np.float16, fill=-np.inf, each=EARLY, modest=True)
        self._first = np.zeros((QUARTER, 0), dtype=np.float16)
        """The first values while anybody may still be within those held back."""

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their state."""
        old = len(self.bound)
        if subjects <= old:
            return
        self.bound = grown(self.bound, subjects, UNKNOWN)
        self._held.grow(subjects)
        if not self._early:
            return
        kept = self._first.T if self._first.shape[1] == old else np.full((old, QUARTER), np.nan, dtype=np.float16)
        self._first = grown(kept, subjects, np.nan).T.copy()

    def add(self, height: NDArray[np.float32], use: Mask, tolerance: float = 2.0) -> None:
        """Take the heights of those in ``use``, all of them finite; the others keep their state."""
        rows, slots = self._held.place(use)
        if rows is NOBODY:
            return
        table, place = self._held.values, self._held.counted(rows) - 1
        if isinstance(place, int):
            if place % EARLY == 0:
                np.fmax(self.bound, table[slots], out=self.bound)
                table[slots] = -np.inf
            np.fmax(table[slots], height, out=table[slots])
        else:
            turns, old, new = place % EARLY == 0, table[slots, rows], height[rows]
            self.bound[rows] = np.where(turns, np.fmax(self.bound[rows], old), self.bound[rows])
            table[slots, rows] = np.where(turns, new, np.fmax(old, new))
        if not self._early:
            self._begin(rows, height)
        elif self._first.shape[1]:
            self._start(rows, height, tolerance)

    def _begin(self, rows: Rows, height: NDArray[np.float32]) -> None:
        """The largest of the first values."""
        known = self._held.counted(rows)
        if isinstance(known, int) and known > EARLY:
            return
        young = np.arange(self._held.subjects)[rows]
        young = young[known <= EARLY]
        before = np.where(self.bound[young] == UNKNOWN, self.floor, self.bound[young])
        self.bound[young] = np.fmax(before, height[young])

    def _start(self, rows: Rows, height: NDArray[np.float32], tolerance: float) -> None:
        """The first values of a series that is still within its first ``LAG``."""
        known = self._held.count
        places = np.arange(len(known))[rows]
        early, young = places[known[places] <= QUARTER], places[known[places] < LAG]
        self._first[known[early] - 1, early] = height[early]
        if len(young):
            self.bound[young] = early_bound(self._first[:, young], known[young], tolerance, self.floor)
        if not (known < LAG).any():
            self._first = self._first[:, :0].copy()


class Steepness:
    """Decades by which the newest gradient exceeds the largest so far, the larger of two norms; held when not sampled.

    The whole norm is sampled and may miss the one step that counts; the trip-wire's is there at every step.
    """

    def __init__(self) -> None:
        self.decades = np.zeros(0, dtype=np.float16)
        """NaN while no gradient was ever seen."""
        self._norms = {NORM: Crest(), TRIPWIRE: Crest()}

    def take(self, size: Magnitudes) -> None:
        """Take the gradients of one step."""
        subjects = size.heights.shape[1]
        self.decades = grown(self.decades, subjects, np.nan)
        for crest in self._norms.values():
            crest.grow(subjects)
        excess = [size.heights[row] - crest.bound for row, crest in self._norms.items()]
        here = size.sent[NORM] | size.sent[TRIPWIRE]
        np.copyto(self.decades, np.clip(np.fmax(*excess), -UNKNOWN, UNKNOWN).astype(np.float16), where=here)
        for row, crest in self._norms.items():
            crest.add(size.heights[row], size.usable[row])


def steepness_of(reading: Reading, size: Magnitudes, own: Steepness) -> Steepness:
    """That of this job with the gradients of this reading: the one that its detectors share, or a detector's own."""
    steepness: Steepness = own if reading.shared is None else reading.shared.setdefault("steepness", own)
    key = "steepness", id(steepness)
    if key not in reading.memo:
        reading.memo[key] = steepness
        steepness.take(size)
    return steepness
