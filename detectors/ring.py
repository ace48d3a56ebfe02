"""The newest values of every subject: a table whose oldest entries are overwritten."""

from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.scalars import Kind, Mask

Rows = NDArray[np.intp] | slice
"""Subjects: some of them, or all."""
Slots = NDArray[np.int32] | int
ALL = slice(None)
NOBODY = np.zeros(0, dtype=np.intp)


def in_turn(turn: int, turns: int, subjects: int, together: int = 64) -> NDArray[np.intp]:
    """Whose turn it is where ``together`` neighbours are looked at in one step and the next as many in the next.

    >>> in_turn(5, 2, 7, together=2).tolist()
    [2, 3, 6]
    """
    if subjects <= together:
        return NOBODY if turn % turns else np.arange(subjects)
    first = np.arange(turn % turns * together, subjects, turns * together)
    places = (first[:, None] + np.arange(together)).ravel()
    return places[places < subjects]


class Ring(Generic[Kind]):
    """Room for ``size`` values of each subject, (size, subjects); every subject is counted for itself.

    Where all have always spoken together, as the ranks of a job do, their next values are one row of the table, which
    is written without looking for anybody's place: for one rank half the calls, for thousands a tenth of the time.

    >>> ring = Ring(2, np.float64)
    >>> ring.grow(2)
    >>> for first, second in ((1.0, 2.0), (3.0, np.nan), (5.0, 6.0)):
    ...     values = np.array([first, second])
    ...     rows = ring.add(values, np.isfinite(values))
    >>> ring.values.T.tolist(), ring.count.tolist()
    ([[5.0, 3.0], [2.0, 6.0]], [3, 2])
    """

    def __init__(
        self, size: int, dtype: type[Kind], fill: float = np.nan, each: int = 1, *, modest: bool = False
    ) -> None:
        self.size, self._fill = size, fill
        self.each = each
        """Values in a row that have the same slot."""
        self._most = 255 // (size * each) * size * each if modest else 0
        """Values are counted no further, but for what tells the slot of the next; 0 where all are counted."""
        self.values: NDArray[Kind] = np.full((size, 0), fill, dtype=dtype)
        self._together: int | None = 0
        """Values that each subject has taken, where all have taken the same number."""
        self._count: NDArray[Any] = np.zeros(0, dtype=np.uint8 if modest else np.int32)
        """The same by subject, once they differ."""

    @property
    def subjects(self) -> int:
        subjects: int = self.values.shape[1]
        return subjects

    @property
    def count(self) -> NDArray[np.int32]:
        """Values taken so far, by subject."""
        if self._together is None:
            return self._count.astype(np.int32, copy=False)
        return np.full(self.subjects, self._together, dtype=np.int32)

    def counted(self, rows: Rows) -> Slots:
        """The same of some subjects: one number where it is that of all."""
        if self._together is not None:
            return self._together
        return self._count[rows].astype(np.int32, copy=False)

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their values."""
        new = subjects - self.subjects
        if new <= 0:
            return
        if self._together != 0:
            self._part()
            self._count = np.concatenate([self._count, np.zeros(new, dtype=self._count.dtype)])
        fresh = np.full((self.size, new), self._fill, dtype=self.values.dtype)
        self.values = np.concatenate([self.values, fresh], axis=1)

    def place(self, use: Mask) -> tuple[Rows, Slots]:
        """Count one more value of those in ``use``; who they are, and the slots for what they say."""
        said = np.count_nonzero(use)
        if not said:
            return NOBODY, 0
        if self._together is not None:
            if said == len(use):
                self._together += 1
                return ALL, (self._together - 1) // self.each % self.size
            self._part()
        rows = use.nonzero()[0]
        slots = self._count[rows].astype(np.int32) // self.each % self.size
        self._count[rows] += 1
        if self._most:
            self._count[self._count == self._most] -= self.size * self.each
        return rows, slots

    def _part(self) -> None:
        """Count each subject for itself from now on."""
        if self._together is None:
            return
        turn = self.size * self.each
        many = self._most and self._together >= self._most
        together = self._most - turn + self._together % turn if many else self._together
        self._count, self._together = np.full(self.subjects, together, dtype=self._count.dtype), None

    def add(self, values: NDArray[Kind], use: Mask) -> Rows:
        """Take the values of those in ``use``, and say who they are."""
        rows, slots = self.place(use)
        self.values[slots, rows] = values[rows]
        return rows
