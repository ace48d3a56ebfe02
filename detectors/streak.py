"""For how many samples in a row something has held of each subject, and since when."""

import numpy as np
from numpy.typing import NDArray


class Streak:
    """Consecutive samples at which a condition held, one count per subject; samples may be far apart.

    >>> streak = Streak()
    >>> for step, holds in ((0, False), (10, True), (20, True)):
    ...     count = streak.update(step, np.array([holds]), np.array([True]))
    >>> int(count[0]), streak.onset(0)
    (2, 5)
    """

    def __init__(self) -> None:
        self.count = np.zeros(0, dtype=np.int64)
        self._began = np.zeros(0, dtype=np.int64)
        self._before = np.zeros(0, dtype=np.int64)

    def update(self, step: int, holds: NDArray[np.bool_], looked: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Take one sample; subjects that were not ``looked`` at keep their count. Returns the counts."""
        grown = len(holds) - len(self.count)
        if grown > 0:
            self.count = np.pad(self.count, (0, grown))
            self._began = np.pad(self._began, (0, grown))
            self._before = np.pad(self._before, (0, grown), constant_values=-1)
        starting = looked & holds & (self.count == 0)
        self._began[starting] = step
        self._before[looked & ~holds] = step
        self.count[looked] = np.where(holds[looked], self.count[looked] + 1, 0)
        return self.count

    def onset(self, subject: int) -> int:
        """The most likely first step: half way between the last sample at which it did not hold and the first.

        When it held at the first sample already, it is taken to have held from that sample on.
        """
        began, before = int(self._began[subject]), int(self._before[subject])
        return began if before < 0 else (before + 1 + began) // 2
