"""The lowest values of some signals in up to 48 blocks that together are all of a run."""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.rises import GAINED, NOTHING, RISE, UNIT, Codes, coded, halved
from torchvitals.detectors.scalars import Floats

Singles = NDArray[np.float32]
BLOCKS = 48
MOST = np.float32(1e18)
"""Bytes; more is a broken number."""
NEARLY = 0.99
"""Of a gain: it is summed up in half precision."""
TOGETHER = 1024
"""Subjects of which each two blocks are made one in the same update: 4 ms."""


class RunLows:
    """Blocks whose length doubles as the run goes on: 58 bytes of each signal of a subject.

    Each is kept as its rise over the one before, see rises.py; what is not positive or broken is absent.

    >>> lows = RunLows(signals=1, steps=2)
    >>> lows.grow(1)
    >>> for step in range(6):
    ...     lows.note(0, np.array([3e8 + 2e5 * step]))
    ...     closed = lows.close(step)
    >>> lows.starts, (lows.series(0, 0) / 1e5).round().tolist()
    ([0, 2, 4], [3000.0, 3004.0, 3008.0])
    """

    def __init__(self, signals: int, steps: int) -> None:
        self.steps = steps
        """Of a block."""
        self.starts: list[int] = []
        """First step of each block that has ended."""
        self._rises: Codes = np.full((BLOCKS, signals, 0), NOTHING, dtype=np.uint8)
        self._newest: Singles = np.full((signals, 0), np.nan, dtype=np.float32)
        """The newest block as its rises have it; NaN while there is none."""
        self._above = np.zeros((signals, 0), dtype=np.float16)
        """How far it lies above the lowest there has been."""
        self._low: Singles = np.full((signals, 0), np.nan, dtype=np.float32)
        self._began = -1
        """First step of the block in progress; negative while there is none."""
        self._folded = 0
        """Subjects that have half as many blocks already."""

    def grow(self, subjects: int) -> None:
        """Make room for new subjects; the old keep their blocks."""
        more = subjects - self._low.shape[1]
        if more > 0:
            self._rises = np.pad(self._rises, ((0, 0), (0, 0), (0, more)), constant_values=NOTHING)
            room = ((0, 0), (0, more))
            self._newest = np.pad(self._newest, room, constant_values=np.nan)
            self._low = np.pad(self._low, room, constant_values=np.nan)
            self._above = np.pad(self._above, room)

    def note(self, signal: int, values: Floats) -> None:
        """Take the values of one signal at one step."""
        singles = values.astype(np.float32)
        sound = singles > 0
        if np.count_nonzero(sound) < len(sound):
            singles[~sound] = np.nan
        np.fmin(self._low[signal], singles, out=self._low[signal])

    def close(self, step: int) -> bool:
        """End the block in progress, which ``step`` belongs to, where it is long enough; whether it was."""
        if self._began < 0:
            self._began = step
        if not self._is_full(step):
            return False
        if len(self.starts) == BLOCKS:
            if not self._fold():
                return False
            self.starts = self.starts[::2]
            # Where readings are rarer than blocks are long, a block is as long as it turned out to be.
            self.steps = max(2 * self.steps, int(np.median(np.diff(self.starts))))
            if not self._is_full(step):
                return False  # this block is now half as long as the others: let it grow
        low = np.where(self._low < MOST, self._low, np.float32(np.nan))
        np.copyto(self._newest, low, where=np.isnan(self._newest))
        codes = coded(low - self._newest)
        self._rises[len(self.starts)] = codes
        self._newest += GAINED[codes]
        self._above = halved(np.maximum(self._above * UNIT + GAINED[codes], 0))
        self.starts.append(self._began)
        self._low.fill(np.nan)
        self._began = -1
        return True

    def risen(self, least: float, start: int) -> list[tuple[int, int]]:
        """Signals and subjects that rose so far: from the lower of two blocks to the lower of the newest two."""
        signals, subjects = (self._above >= NEARLY * least / UNIT).nonzero()  # else it is nobody's
        ends = RISE[self._rises[[start, start + 1, len(self.starts) - 2, len(self.starts) - 1]][:, signals, subjects]]
        between = GAINED[self._rises[start + 1 : len(self.starts), signals, subjects]].sum(axis=0)
        gain = between + np.minimum(0, -ends[3]) - np.minimum(0, ends[1]) + 0 * (ends[0] + ends[2])
        large = gain >= least
        return list(zip(signals[large].tolist(), subjects[large].tolist(), strict=True))

    def series(self, signal: int, subject: int, start: int = 0) -> Floats:
        """The blocks of one subject from one on, NaN where it was absent."""
        codes = self._rises[start : len(self.starts), signal, subject]
        risen = np.cumsum(GAINED[codes], dtype=np.float64)
        return np.where(codes & NOTHING == NOTHING, np.nan, self._newest[signal, subject] - (risen[-1] - risen))

    def _is_full(self, step: int) -> bool:
        return step - self._began + 1 >= self.steps

    def _fold(self) -> bool:
        """Make one block of each two, of some subjects at a time; whether all have got them."""
        some = slice(self._folded, self._folded + TOGETHER)
        rises = self._rises[:, :, some]
        level, told = np.zeros(rises.shape[1:], dtype=np.float32), np.zeros(rises.shape[1:], dtype=np.float32)
        for place in range(BLOCKS // 2):
            first = level + RISE[rises[2 * place]]
            np.copyto(level, first, where=~np.isnan(first))
            second = level + RISE[rises[2 * place + 1]]
            np.copyto(level, second, where=~np.isnan(second))
            rises[place] = codes = coded(np.fmin(first, second) - told)
            told += GAINED[codes]
        self._newest[:, some] += told - level
        self._folded = 0 if some.stop >= self._newest.shape[1] else some.stop
        return not self._folded
