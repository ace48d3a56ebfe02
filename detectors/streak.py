"""For how many samples in a row something has held of each subject, and since when."""

import numpy as np
from numpy.typing import NDArray

TRIGGERED = 4
"""A gap this many times as long as those that follow means that the following samples were not due by routine."""

COUNT, BEFORE = 0, 3
"""Rows."""


class Streak:
    """Consecutive samples at which a condition held, one count per subject; samples may be far apart.

    >>> streak = Streak()
    >>> for step, holds in ((0, False), (10, True), (20, True)):
    ...     count = streak.update(step, np.array([holds]), np.array([True]))
    >>> int(count[0]), streak.onset(0)
    (2, 5)
    """

    def __init__(self) -> None:
        self._subjects = 0
        self._missed = -1
        """Newest sample at which it held of nobody; while it goes on so there is nothing to keep of anybody."""
        self._rows = np.zeros((4, 0), dtype=np.int32)
        """Of each subject the count, the sample at which it began, the one after it, and the last at which it did not
        hold; while it holds of anybody."""

    @property
    def holding(self) -> bool:
        """Whether it has held of anybody at the last sample."""
        return self._rows.shape[1] > 0

    @property
    def count(self) -> NDArray[np.int32]:
        """Samples in a row at which it held, by subject."""
        return self._rows[COUNT] if self.holding else np.zeros(self._subjects, dtype=np.int32)

    def update(self, step: int, holds: NDArray[np.bool_], looked: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Take one sample; subjects that were not ``looked`` at keep their count. Returns the counts."""
        held = looked & holds
        if not self.holding and not np.count_nonzero(held):
            self._subjects = max(self._subjects, len(holds))
            if np.count_nonzero(looked):
                self._missed = step
            return self.count
        self._make_room(len(holds))
        count, began, second, before = self._rows
        missed = looked & ~holds
        before[missed] = step
        count[missed] = 0
        began[held & (count == 0)] = step
        second[held & (count == 1)] = step
        count[held] += 1
        if not count.any():
            self._rows, self._missed = self._rows[:, :0].copy(), step
        return self.count

    def _make_room(self, subjects: int) -> None:
        if not self.holding:
            self._rows = np.zeros((4, self._subjects), dtype=np.int32)
            self._rows[BEFORE] = self._missed
        more = subjects - self._rows.shape[1]
        if more > 0:
            self._rows = np.pad(self._rows, ((0, 0), (0, more)))
            self._rows[BEFORE, -more:] = -1
        self._subjects = max(self._subjects, subjects)

    def missed(self, subject: int) -> int:
        """The last sample at which it did not hold; -1 when there was none."""
        return int(self._rows[BEFORE, subject]) if self.holding else self._missed

    def onset(self, subject: int) -> int:
        """The most likely first step: half way between the last sample at which it did not hold and the first.

        When it held at the first sample already, it is taken to have held from that sample on. When the next sample
        came far sooner, something made the job look (see hooks/suspicion.py): then it began just there.
        """
        if not self.holding:
            return self._missed + 1
        count, began, second, before = (int(each) for each in self._rows[:, subject])
        since = second - began if count > 1 else 0
        if before < 0 or (since and began - before > TRIGGERED * since):
            return began
        return (before + 1 + began) // 2
