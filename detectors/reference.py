"""What is remembered of a stream of blocks: the newest ones in full, the first ones as sums."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors import block_statistics as blocks
from torchvitals.detectors.block_statistics import Floats, Mask

MEAN, SCALE, MISSING, ZERO = range(4)
LARGEST = 1e30
"""Values are cut here: squares must stay finite."""
CONSTANT = 1e-5
"""A spread below this share of the level is rounding: such an entry is constant."""

LEAST_SCALE = 0.25
"""A block's standard deviation counts as at least this share of the usual: rare events leave blocks without any."""


class View(NamedTuple):
    """Blocks of some subjects, oldest first: arrays (statistics, subjects, blocks), and scales (…, subjects).

    ``unit`` is what one unit of effect is: the standard deviation of single values for means, 1 elsewhere.
    ``sampling`` is the variance that a block's figure has by the number of its rows alone.
    """

    values: Floats
    known: Mask
    unit: Floats
    sampling: Floats
    role: Floats
    pivot: Floats
    std: Floats
    """Standard deviations within the blocks as they came, (subjects, blocks)."""
    constant: Mask
    """Subjects that have no variation within most blocks."""

    def describe(self, onset: "Onset") -> dict[str, Any]:
        """Levels before and after, in the entry's own units; for one subject."""
        split, last = onset.block, self.values.shape[-1]
        # The blocks next to the split may hold some of both, and a ramp is at its height in the newest blocks.
        start = max(split, last - 4) if onset.gradual else min(split + 1, last - 1)
        described: dict[str, Any] = {}
        for when, span in (("before", slice(0, max(split - 1, 1))), ("after", slice(start, None))):
            level, _ = blocks.masked_mean(self.values[:, 0, span], self.known[:, 0, span])
            variance, _ = blocks.masked_mean(self.std[0, span] ** 2, self.known[SCALE, 0, span])
            described[f"mean_{when}"] = float(level[MEAN] + self.pivot[0])
            described[f"std_{when}"] = float(np.sqrt(variance))
            described[f"missing_{when}"] = float(level[MISSING])
            described[f"zero_{when}"] = float(level[ZERO])
        return described


class Onset(NamedTuple):
    """First request of the new regime, whether it came gradually, and the block of the view it is in."""

    step: int
    gradual: bool
    block: int


class Ring:
    """The newest ``length`` blocks of every subject: 14 bytes each, 840 per subject of 60 blocks.

    Shares and rows are float16: a share of 5 % is exact to 0.003 %, and rows only say how noisy a block is.
    """

    def __init__(self, length: int) -> None:
        self.blocks = 0
        self._length = length
        self._steps = np.full(length + 1, -1, dtype=np.int64)
        self._values = np.empty((2, 0, length), dtype=np.float32)
        self._shares = np.empty((2, 0, length), dtype=np.float16)
        self._rows = np.empty((0, length), dtype=np.float16)
        self._role = np.empty(0, dtype=np.float32)
        self._pivot = np.empty(0)
        self.seen = np.empty(0, dtype=bool)

    def add(self, step: int, values: Floats, rows: Floats, role: Floats) -> None:
        """Take one block: (4 statistics, subjects), rows 0 for what is absent."""
        self._grow(len(rows))
        usable = np.where(rows > 0, np.clip(np.nan_to_num(values[MEAN], nan=0.0), -LARGEST, LARGEST), np.nan)
        fresh = np.isnan(self._pivot) & np.isfinite(usable) & np.isfinite(values[MEAN])
        self._pivot[fresh] = usable[fresh]
        self.seen |= rows > 0
        self._role = np.asarray(role, dtype=np.float32)
        centred = np.where(np.isfinite(values), np.clip(values, -LARGEST, LARGEST), np.nan)
        centred[SCALE:] = np.maximum(centred[SCALE:], 0.0)
        centred[MISSING:] = np.minimum(centred[MISSING:], 1.0)
        centred[MEAN] -= np.nan_to_num(self._pivot)
        newest = np.where(rows > 0, centred, np.nan)
        pairs = ((self._values, newest[:MISSING]), (self._shares, newest[MISSING:]), (self._rows, rows))
        for array, latest in pairs:
            array[..., :-1] = array[..., 1:]
            array[..., -1] = latest
        self._steps = np.append(self._steps[1:], step)
        self.blocks += 1

    def view(self, subjects: NDArray[np.int64]) -> View:
        """The remembered blocks of ``subjects``."""
        start = max(0, self._length - self.blocks)
        values = np.concatenate(
            [self._values[:, subjects, start:], self._shares[:, subjects, start:]], dtype=np.float64
        )
        rows = self._rows[subjects, start:].astype(np.float64)
        known = np.isfinite(values)
        past = slice(None, max(4, 3 * rows.shape[-1] // 4))
        spread, least = self._spread(values[..., past], known[..., past], subjects)
        std = values[SCALE].copy()
        usual = np.median(np.where(known[SCALE, :, past], values[SCALE, :, past], 0.0), axis=-1)
        with np.errstate(invalid="ignore"):
            values[SCALE] = np.log(np.maximum(values[SCALE], np.maximum(LEAST_SCALE * usual, least)[:, None]))
        unit = np.ones((4, len(subjects)))
        unit[MEAN] = spread
        sampling = self._sampling(values, known, rows, spread)
        pivot = np.nan_to_num(self._pivot[subjects])
        return View(values, known, unit, sampling, self._role[subjects].astype(np.float64), pivot, std, usual <= least)

    def onset(self, view: View, statistic: int) -> "Onset":
        """Where the new regime of a single subject began."""
        known = view.known[statistic, 0]
        series = view.values[statistic, 0, known]
        steps = self._steps[1:][-view.values.shape[-1] :][known]
        place, gradual = blocks.split_point(series)
        whole = int(np.flatnonzero(known)[place])
        if gradual or not 2 <= place < len(series) - 1:
            return Onset(int(steps[place]), gradual, whole)
        before, after = series[: place - 1].mean(), series[place + 1 :].mean()
        if after == before:
            return Onset(int(steps[place]), gradual, whole)
        # The change fell inside a block: how much of the two around the split had moved says where.
        moved = float(np.clip((series[place - 1 : place + 1] - before) / (after - before), 0, 1).sum())
        return Onset(int(steps[place + 1] - round(moved * (steps[place + 1] - steps[place]))), gradual, whole)

    def _grow(self, count: int) -> None:
        more = count - len(self._pivot)
        if more <= 0:
            return
        self._values = np.pad(self._values, ((0, 0), (0, more), (0, 0)), constant_values=np.nan)
        self._shares = np.pad(self._shares, ((0, 0), (0, more), (0, 0)), constant_values=np.nan)
        self._rows = np.pad(self._rows, ((0, more), (0, 0)))
        self._pivot = np.pad(self._pivot, (0, more), constant_values=np.nan)
        self.seen = np.pad(self.seen, (0, more))

    def _spread(self, values: Floats, known: Mask, subjects: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Standard deviation of single values, within the blocks and between them, and what would be rounding."""
        within, _ = blocks.masked_mean(values[SCALE] ** 2, known[SCALE])
        between = blocks.masked_variance(values[MEAN], known[MEAN])
        level = np.abs(np.nan_to_num(self._pivot[subjects]))
        spread, least = np.sqrt(within + between), np.maximum(CONSTANT * level, 1e-12)
        return np.maximum(spread, least), least

    def _sampling(self, values: Floats, known: Mask, rows: Floats, spread: Floats) -> Floats:
        count = np.maximum(np.where(rows > 0, rows, 0).sum(-1) / np.maximum((rows > 0).sum(-1), 1), 1.0)
        out = np.empty(values.shape[:2])
        out[MEAN] = spread**2 / count
        out[SCALE] = 1 / (2 * count)
        for statistic in (MISSING, ZERO):
            share, seen = blocks.masked_mean(values[statistic], known[statistic])
            share = (share * seen * count + 0.5) / (seen * count + 1)  # Jeffreys: 0 of n is not certainty
            out[statistic] = share * (1 - share) / count
        return out


class Anchor:
    """The first ``length`` blocks as sums; a block enters when it is ``gap`` blocks old, so that no change
    that is still being found becomes its own reference.
    """

    def __init__(self, length: int, gap: int) -> None:
        self._length = length
        self._gap = gap
        self._sums = np.zeros((5, 4, 0))

    def take(self, view: View, subjects: NDArray[np.int64]) -> None:
        """Take the block that has just become ``gap`` blocks old."""
        more = int(subjects.max()) + 1 - self._sums.shape[-1]
        if more > 0:
            self._sums = np.pad(self._sums, ((0, 0), (0, 0), (0, more)))
        if view.values.shape[-1] <= self._gap + 1:
            return
        entering, before = view.values[..., -self._gap - 1], view.values[..., -self._gap - 2]
        both = np.isfinite(entering) & np.isfinite(before) & (self._sums[0][:, subjects] < self._length)
        x, y = np.where(both, entering, 0.0), np.where(both, before, 0.0)
        self._sums[:, :, subjects] += np.stack([both.astype(np.float64), x, x * x, x * y, y])

    def summary(self, subjects: NDArray[np.int64]) -> tuple[Floats, Floats, Floats, NDArray[np.int64]]:
        """Mean, variance, memory in blocks and number of the blocks, each (statistics, subjects)."""
        count, total, squares, products, lagged = self._sums[:, :, subjects]
        n = np.maximum(count, 1)
        mean = total / n
        variance = np.maximum(squares / n - mean**2, 0.0)
        covariance = products / n - mean * lagged / n
        r = np.divide(covariance, variance, out=np.zeros_like(variance), where=variance > 1e-12 * (1 + mean**2))
        whole = count.astype(np.int64)
        return mean, variance * n / np.maximum(n - 1, 1), blocks.memory_from_lag(r, whole), whole
