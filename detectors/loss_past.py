"""The newest losses of every rank, kept once for all detectors that look at them.

Nine detectors look at the last 16, 32 or 64 losses of each rank. Kept by each for itself they were 2.7 KiB a rank.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.ring import ALL, NOBODY, Ring, Rows, Slots
from torchvitals.detectors.scalars import ZERO, Losses, Mask, Singles, decades, grown, losses
from torchvitals.detectors.short_floats import ABSENT, VALUE, shortened

KEPT = 64
"""Losses of each rank; the bits of a word as well."""
LAG = 32
"""Losses after which one has settled: see envelope.py."""


class LossPast:
    """The newest 64 losses that were applied, of every rank: 136 bytes, and 12 more once ranks speak by turns.

    Each is kept within 0.4 %, see short_floats.py.

    >>> past = LossPast()
    >>> for step in (3, 4, 6):
    ...     past.take(Reading.of(step, loss=[1.0 * step, 0.0 if step < 6 else 7.0]), 2)
    >>> past.newest(np.arange(2), 2).tolist(), past.known.tolist(), past.dates(0, 2)
    ([[4.0, 0.0], [6.0, 7.0]], [3, 1], [4, 6])
    """

    def __init__(self) -> None:
        self.ring = Ring(KEPT, np.uint16, fill=ABSENT)
        self._brought = False
        """Whether the newest reading brought anybody's."""
        self.leading: Mask | None = None
        """Where that is a zero before any other; None where nobody's is."""
        self.first_step = np.zeros(0, dtype=np.int32)
        """Of each rank's first loss."""
        self.first_loss: Singles = np.zeros(0, dtype=np.float32)
        """NaN before it."""
        self._fresh = False
        """Whether somebody may have sent none so far."""
        self._zeros: NDArray[np.int32] | None = None
        """Losses of exactly zero before any other; None where nobody has had one."""
        self._steps: deque[int] = deque(maxlen=KEPT)
        """Of the newest readings that brought anybody's, and by rank in which of them it spoke: bit k is k before the
        newest. None while all have spoken in all of them."""
        self._spoke: NDArray[np.uint64] | None = None

    @property
    def rows(self) -> Rows:
        """Whose loss the newest reading brought."""
        if not self._brought:
            return NOBODY
        return ALL if self._spoke is None else (self._spoke & np.uint64(1)).nonzero()[0]

    @property
    def count(self) -> NDArray[np.int32]:
        """Losses taken so far, by rank."""
        return self.ring.count

    @property
    def known(self) -> NDArray[np.int32]:
        """The same without zeros before any other loss: a student that starts as its own teacher has no scale yet."""
        return self.count if self._zeros is None else self.count - self._zeros

    @property
    def before(self) -> NDArray[np.int32]:
        """The same before the newest reading."""
        known = self.known.copy()
        known[self.rows] -= 1
        return known if self._zeros is None else np.maximum(known, 0)

    def counted(self, rows: Rows) -> Slots:
        """``known`` of some: one number where it is that of all."""
        count = self.ring.counted(rows)
        return count if self._zeros is None else np.asarray(count - self._zeros[rows])

    def take(self, reading: Reading, subjects: int) -> None:
        """Take a reading, of which several detectors may tell; the first one counts."""
        key = "losses taken", id(self)
        if key in reading.memo:
            return
        reading.memo[key] = self  # kept alive with it: the number is not given to another one meanwhile
        said = losses(reading, subjects)
        self._grow(subjects)
        self._begin(said)
        rows = self.ring.add(shortened(said.singles, reading.step), said.usable)
        self._brought = rows is not NOBODY
        if self._fresh:
            first = said.usable & np.isnan(self.first_loss)
            self.first_step[first], self.first_loss[first] = reading.step, said.singles[first]
            self._fresh = bool(np.isnan(self.first_loss).any())
        if self._brought:
            self._date(reading.step, said.usable)

    def newest(self, rows: Rows, number: int, skip: int = 0) -> Singles:
        """The newest losses of some but for ``skip``, the oldest first, NaN before any: (number, ranks)."""
        count = self.ring.counted(rows)
        back = np.arange(number + skip, skip, -1)
        if isinstance(count, int):
            newest = self.ring.values[:, rows][(count - back) % KEPT]
        else:
            newest = self.ring.values[(count - back[:, None]) % KEPT, np.arange(self.ring.subjects)[rows]]
        losses: Singles = VALUE[newest]
        return losses

    def whole(self, rows: Rows) -> Singles:
        """All that is remembered of some, in no order: (``KEPT``, ranks)."""
        table: Singles = VALUE[self.ring.values[:, rows]]
        return table

    def of(self, row: int, number: int, skip: int = 0) -> Singles:
        """The same of one rank: (number,)."""
        return self.newest(np.array([row]), number, skip)[:, 0]

    def first(self, rows: NDArray[np.intp], number: int) -> Singles:
        """The first losses of some that have sent no more than ``KEPT``, zeros before any other left out."""
        place = np.arange(number)[:, None]
        begun = np.zeros(len(rows), dtype=np.int32) if self._zeros is None else self._zeros[rows]
        first = VALUE[self.ring.values[(begun + place) % KEPT, rows]]
        return np.where(place < self.known[rows], first, np.float32(np.nan))

    def leaving(self) -> Singles:
        """Heights (log10 magnitudes) of the losses that have just settled, of ``rows``; NaN where there is none yet."""
        rows = self.rows
        count = self.ring.counted(rows)
        place = (count - 1 - LAG) % KEPT
        old = self.ring.values[place] if rows is ALL else self.ring.values[place, np.arange(self.ring.subjects)[rows]]
        heights: Singles = decades(VALUE[old].astype(np.float64)).astype(np.float32)
        return heights

    def dates(self, row: int, number: int) -> list[int]:
        """Steps of its newest losses, the oldest first; one that is older than all known steps is as old as these."""
        steps, number = list(self._steps), min(number, int(self.ring.count[row]))
        if self._spoke is not None:
            spoke = int(self._spoke[row])
            steps = [step for back, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True) if spoke >> back & 1]
        oldest = self._steps[0] if self._steps else -1
        return ([oldest] * (number - len(steps)) + steps)[-number:] if number else []

    def _grow(self, subjects: int) -> None:
        old = self.ring.subjects
        if subjects <= old:
            return
        self.ring.grow(subjects)
        self._fresh = True
        self.first_step = grown(self.first_step, subjects)
        self.first_loss = grown(self.first_loss, subjects, np.nan)
        if self._zeros is not None:
            self._zeros = grown(self._zeros, subjects)
        if self._spoke is not None:
            self._spoke = grown(self._spoke, subjects)
        elif self._steps:
            self._spoke = grown(np.full(old, ~np.uint64(0)), subjects)

    def _begin(self, said: Losses) -> None:
        """Count the zeros before any other loss."""
        self.leading, zero = None, said.values == ZERO
        if not np.count_nonzero(zero):
            return
        leading = zero & said.usable & (self.known == 0)
        if np.count_nonzero(leading):
            self.leading = leading
            self._zeros = np.zeros(len(leading), dtype=np.int32) if self._zeros is None else self._zeros
            self._zeros += leading

    def _date(self, step: int, use: Mask) -> None:
        self._steps.append(step)
        if self._spoke is None and np.count_nonzero(use) < len(use):
            self._spoke = np.full(len(use), ~np.uint64(0))
        if self._spoke is not None:
            self._spoke <<= np.uint64(1)
            self._spoke |= use


def past_of(reading: Reading, subjects: int, own: LossPast) -> LossPast:
    """The losses of this job with those of this reading: those that its detectors share, or a detector's own."""
    past: LossPast = own if reading.shared is None else reading.shared.setdefault("losses", own)
    past.take(reading, subjects)
    return past
