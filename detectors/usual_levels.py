"""Levels of the past in eight bits each, as logarithms: within 1 % of what they were."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.intp]
Singles = NDArray[np.float32]
RESOLUTION = 0.02
"""Of a logarithm: far below what a block's median varies by, and 12 times up and down are within reach."""
FARTHEST = 126
ABSENT = -128
NEAR_THE_EDGE = 100
"""Where levels have come so far from the first one that they are told against a newer one."""


class UsualLevels:
    """The newest ``length`` levels of every subject, oldest first, against one of them: a byte each, and two more.

    >>> past = UsualLevels(3)
    >>> past.grow(1)
    >>> for level in (0.05, 0.06, 0.04, 0.05):
    ...     past.add(np.array([0]), np.array([level], dtype=np.float32))
    >>> past.of(np.array([0])).round(3).tolist()
    [[0.05999999865889549, 0.03999999910593033, 0.05000000074505806]]
    """

    def __init__(self, length: int) -> None:
        self._codes = np.full((0, length), ABSENT, dtype=np.int8)
        self._unit = np.full(0, np.nan, dtype=np.float16)

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their levels."""
        more = subjects - len(self._unit)
        if more > 0:
            self._codes = np.pad(self._codes, ((0, more), (0, 0)), constant_values=ABSENT)
            self._unit = np.pad(self._unit, (0, more), constant_values=np.nan)

    def add(self, rows: Rows, levels: Singles) -> None:
        """Take one level above 0 of each of ``rows``."""
        unit = self._unit[rows]
        np.copyto(unit, levels.astype(np.float16), where=np.isnan(unit))
        steps = np.rint(np.log(levels / unit.astype(np.float32)) / RESOLUTION)
        self._codes[rows] = np.roll(self._codes[rows], -1, axis=1)
        self._codes[rows, -1] = np.clip(steps, -FARTHEST, FARTHEST)
        self._unit[rows] = unit
        for far in (np.abs(steps) > NEAR_THE_EDGE).nonzero()[0]:
            self._move(int(rows[far]), float(levels[far]))

    def of(self, rows: Rows | slice) -> Singles:
        """Their levels, (subjects, length); NaN before any."""
        return LEVEL[self._codes[rows].astype(np.intp) - ABSENT] * self._unit[rows, None].astype(np.float32)

    def forget(self, rows: Rows) -> None:
        """Begin anew."""
        self._codes[rows], self._unit[rows] = ABSENT, np.nan

    def _move(self, row: int, unit: float) -> None:
        moved = self._codes[row] - np.rint(np.log(unit / float(self._unit[row])) / RESOLUTION)
        self._codes[row] = np.where(self._codes[row] == ABSENT, ABSENT, np.clip(moved, -FARTHEST, FARTHEST))
        self._unit[row] = unit


def _levels() -> Singles:
    codes = np.arange(ABSENT, -ABSENT)
    return np.where(codes == ABSENT, np.nan, np.exp(RESOLUTION * codes)).astype(np.float32)


LEVEL = _levels()
