"""A series at many time scales at once, from a few steps to 65,536, in a hundred bytes."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.rises import GAINED, UNIT, Codes, coded, halved
from torchvitals.detectors.scalars import Floats, grown

BLOCKS = 8
RUNGS = 12
"""The longest holds blocks of 8,192 steps: what fills less of the memory than a tenth in eight of them is a leak that
memory_leak.py tells of long before it matters."""
NEARLY = 0.99
"""Of a rise: how far the newest block is above the lowest one is kept in half precision."""
Singles = NDArray[np.float32]


class Ladder:
    """Rung k has the lowest values of the newest eight blocks of ``steps`` × 2^k steps, for every subject.

    The past is a chain of blocks whose length doubles: two of one length become one of the next when the rung of their
    own length needs them no more, as in an exponential histogram (Datar, Gionis, Indyk & Motwani 2002, SIAM J. Comput.
    31). Each is kept by its rise over the one before (rises.py), what is between two lengths in half precision: 84
    bytes per subject. Where nobody spoke, and before anybody did, a block repeats what is known. A rung may be looked
    at when its newest block has just ended.

    >>> ladder = Ladder()
    >>> for step in range(65):
    ...     for turned in ladder.turns(step):
    ...         blocks = ladder.blocks(1, [0])[0].tolist() if 1 in turned else []
    ...     ladder.add(np.array([1024.0 * step]))
    >>> [block / 1024 for block in blocks], turned
    ([0.0, 8.0, 16.0, 24.0, 32.0, 40.0, 48.0, 56.0], [0, 1, 2, 3, 4])
    """

    def __init__(self, steps: int = 4) -> None:
        self.steps = steps
        self._shortest: Codes = np.zeros((BLOCKS, 0), dtype=np.uint8)
        """Rises of the shortest blocks, of which there are nine at most; block j is in row j mod 8."""
        self._longer: Codes = np.zeros((RUNGS - 1, BLOCKS // 2, 0), dtype=np.uint8)
        """The same of the longer ones, five of each length."""
        self._between = np.zeros((RUNGS - 1, 0), dtype=np.float16)
        """Rise from the newest block of a length to the oldest of half that length."""
        self._newest: Singles = np.full(0, np.nan, dtype=np.float32)
        self._above = np.zeros(0, dtype=np.float16)
        """How far the newest lies above the lowest there has been."""
        self._low: Singles = np.full(0, np.nan, dtype=np.float32)
        self._block = -1
        """The one in progress."""
        self._blocks = 0

    def steps_of(self, rung: int) -> int:
        """In a block of it."""
        return self.steps << rung

    def lowest(self, subject: int) -> float:
        """Of all that is remembered of one subject."""
        return float(self._chain(RUNGS - 1, [subject]).min() + self._newest[subject])

    def blocks(self, rung: int, subjects: Sequence[int] | NDArray[np.intp]) -> Floats:
        """Those of one rung, (subjects, blocks), the oldest first."""
        rows = np.asarray(subjects, dtype=np.intp)
        starts = _places(rung)
        levels = self._chain(rung, rows)[: starts[-1] + 1].astype(np.float64) + self._newest[rows]
        return np.asarray(np.minimum.reduceat(levels, starts, axis=0)[::-1].T)

    def risen(self, rung: int, least: float) -> tuple[NDArray[np.intp], Singles]:
        """Who rose so far, or further, from the oldest block to the newest of a rung that has just turned; how far."""
        rows = (self._above >= NEARLY * least / UNIT).nonzero()[0]  # else it is nobody's
        if not len(rows):
            return rows, self._newest[rows]
        levels, starts = self._chain(rung, rows), _places(rung)
        rise = levels[: starts[1]].min(axis=0) - levels[starts[-1]]
        large = rise >= least
        return rows[large], rise[large]

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
        np.fmin(self._low, values.astype(np.float32), out=self._low)

    def _turn(self) -> list[int]:
        """End the block in progress."""
        self._blocks += 1
        turned = [rung for rung in range(RUNGS) if not self._blocks % (1 << rung)]
        for rung in reversed(turned[:-1]):
            self._merge(rung)
        np.copyto(self._newest, self._low, where=np.isnan(self._newest))
        codes = coded(np.nan_to_num(self._low - self._newest))
        self._rises(0)[(self._blocks - 1) % BLOCKS] = codes
        self._newest += GAINED[codes]
        self._above = halved(np.maximum(self._above * UNIT + GAINED[codes], 0))
        self._low.fill(np.nan)
        return turned

    def _merge(self, rung: int) -> None:
        """Make one block of the two oldest of a rung; the ten that it has got are two more than are looked at."""
        rises, longer = self._rises(rung), self._rises(rung + 1)
        older = (self._blocks >> rung) - BLOCKS - 1
        rose, goes_on = GAINED[rises[older % len(rises)]], GAINED[rises[(older + 1) % len(rises)]]
        between = self._between[rung].astype(np.float32) * UNIT
        codes = coded(between + np.minimum(rose, 0))
        longer[(older // 2) % len(longer)] = codes
        self._between[rung] = halved(between + rose + goes_on - GAINED[codes])

    def _chain(self, rung: int, rows: Sequence[int] | NDArray[np.intp]) -> Singles:
        """All blocks up to the length of ``rung``, the newest first, over the newest."""
        falls = [np.zeros((1, len(self._newest[rows])), dtype=np.float32)]
        for finer in range(rung + 1):
            # Numbers count from the start of the run; there are eight of the shortest or, in odd turns, nine.
            count, rises = self._blocks >> finer, self._rises(finer)
            newest, oldest = count - (BLOCKS // 2 + 1 if finer else 1), count - BLOCKS - count % 2
            falls.append(-GAINED[rises[np.arange(newest, oldest, -1) % len(rises)][:, rows]])
            if finer < rung:
                falls.append(self._between[finer : finer + 1, rows].astype(np.float32) * -UNIT)
        levels: Singles = np.concatenate(falls).cumsum(axis=0)
        return levels

    def _rises(self, rung: int) -> Codes:
        return self._longer[rung - 1] if rung else self._shortest

    def _grow(self, count: int) -> None:
        if count <= len(self._low):
            return
        self._shortest = grown(self._shortest.T, count).T.copy()
        self._longer = np.moveaxis(grown(np.moveaxis(self._longer, 2, 0), count), 0, 2).copy()
        self._between = grown(self._between.T, count).T.copy()
        self._newest, self._above = grown(self._newest, count, np.nan), grown(self._above, count)
        self._low = grown(self._low, count, np.nan)


@cache
def _places(rung: int) -> NDArray[np.intp]:
    """Where each of the eight blocks of a rung begins in the chain, when it has just turned."""
    ages = [age >> rung for age in range(BLOCKS)]
    for finer in range(1, rung + 1):
        ages += [age >> rung - finer for age in range(BLOCKS // 2, BLOCKS)]
    return np.searchsorted(ages, np.arange(BLOCKS))
