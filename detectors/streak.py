"""For how many samples in a row something has held of each subject, and since when."""

import numpy as np
from numpy.typing import NDArray

TRIGGERED = 4
"""A gap this many times as long as those that follow means that the following samples were not due by routine."""


class Streak:
    """Consecutive samples at which a condition held, one count per subject; samples may be far apart.

    >>> streak = Streak()
    >>> for step, holds in ((0, False), (10, True), (20, True)):
    ...     count = streak.update(step, np.array([holds]), np.array([True]))
    >>> int(count[0]), streak.onset(0)
    (2, 5)
    """

    def __init__(self) -> None:
        self.count = np.zeros(0, dtype=np.int32)
        self._began = np.zeros(0, dtype=np.int32)
        self._before = np.zeros(0, dtype=np.int32)
        self._second = np.zeros(0, dtype=np.int32)
        """The sample after the first at which it held."""
        self.holding = False
        """Whether it has held of anybody at the last sample."""

    def update(self, step: int, holds: NDArray[np.bool_], looked: NDArray[np.bool_]) -> NDArray[np.int32]:
        """Take one sample; subjects that were not ``looked`` at keep their count. Returns the counts."""
        grown = len(holds) - len(self.count)
        if grown > 0:
            self.count = np.pad(self.count, (0, grown))
            self._began = np.pad(self._began, (0, grown))
            self._before = np.pad(self._before, (0, grown), constant_values=-1)
            self._second = np.pad(self._second, (0, grown))
        held = looked & holds
        anybody = np.count_nonzero(held) > 0
        missed = looked & ~holds if anybody else looked
        self._before[missed] = step
        if self.holding or anybody:
            self.count[missed] = 0
            self._began[held & (self.count == 0)] = step
            self._second[held & (self.count == 1)] = step
            self.count[held] += 1
            self.holding = bool(self.count.any())
        return self.count

    def onset(self, subject: int) -> int:
        """The most likely first step: half way between the last sample at which it did not hold and the first.

        When it held at the first sample already, it is taken to have held from that sample on. When the next sample
        came far sooner, something made the job look (see hooks/suspicion.py): then it began just there.
        """
        began, before = int(self._began[subject]), int(self._before[subject])
        since = int(self._second[subject]) - began if self.count[subject] > 1 else 0
        if before < 0 or (since and began - before > TRIGGERED * since):
            return began
        return (before + 1 + began) // 2
