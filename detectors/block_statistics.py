"""Statistics of block means that stay honest when the stream remembers its past: vectorised, masked, no loops.

Everything works along the last axis; ``known`` is False where a block said nothing.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def masked_mean(values: Floats, known: Mask) -> tuple[Floats, NDArray[np.int64]]:
    """Mean over the known and their number; 0 where nothing is known.

    >>> masked_mean(np.array([[1.0, np.nan, 3.0]]), np.array([[True, False, True]]))[0].tolist()
    [2.0]
    """
    count = known.sum(-1)
    mean: Floats = np.where(known, values, 0.0).sum(-1) / np.maximum(count, 1)
    return mean, count


def masked_variance(values: Floats, known: Mask) -> Floats:
    """Unbiased variance over the known; 0 with fewer than two."""
    mean, count = masked_mean(values, known)
    centred = np.where(known, values - mean[..., None], 0.0)
    return np.asarray((centred**2).sum(-1) / np.maximum(count - 1, 1))


def row_median(table: NDArray[np.floating[Any]]) -> Floats:
    """Median of each row over its numbers; NaN where a row has none.

    >>> row_median(np.array([[3.0, np.nan, 1.0], [5.0, 9.0, 6.0]])).tolist()
    [2.0, 6.0]
    """
    ordered = np.sort(table, axis=1)  # NaN last; eight times as fast as to part it at two places, where numpy has AVX
    if table.size and np.isfinite(ordered[:, -1]).all() and np.isfinite(ordered[:, 0]).all():
        half = table.shape[1] // 2
        middle = ordered[:, half] + ordered[:, half - 1 + table.shape[1] % 2]
        return np.asarray(middle / 2, dtype=np.float64)
    count = np.isfinite(ordered).sum(1)
    rows = np.arange(len(table))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, table.shape[1] - 1)
    return np.asarray(np.where(count > 0, (ordered[rows, low] + ordered[rows, high]) / 2, np.nan), dtype=np.float64)


def memory(values: Floats, known: Mask) -> Floats:
    """Integrated autocorrelation time in blocks, ≥ 1: how many blocks one independent block is worth.

    From the lag-1 autocorrelation as (1 + r) / (1 - r), r corrected for its bias of -(1 + 3 r) / n
    (Kendall 1954, Biometrika 41): short references would else look independent.

    >>> memory(np.tile([0.0, 0.0, 1.0, 1.0], 8)[None], np.ones((1, 32), bool)).round(1).tolist()
    [1.1]
    """
    mean, count = masked_mean(values, known)
    centred = np.where(known, values - mean[..., None], 0.0)
    total = (centred**2).sum(-1)
    lagged = (centred[..., 1:] * centred[..., :-1]).sum(-1)
    return memory_from_lag(np.divide(lagged, total, out=np.zeros_like(total), where=total > 0), count)


def memory_from_lag(r: Floats, count: NDArray[np.int64]) -> Floats:
    """The same from a lag-1 autocorrelation that is already known."""
    r = np.clip(r + (1 + 3 * r) / np.maximum(count, 4), 0.0, 0.98)
    return (1 + r) / (1 - r)


def summed_memory(series: Floats, lags: int) -> float:
    """The same of a whole series, and at least the sum of its autocorrelations up to ``lags``.

    Where noise lies on a slow level the first of them says little of the others: of half AR(1) with 0.9 and half white
    noise it makes 2.6 blocks of 10. The k-th sum is too low by 2 k / n of itself, as the series is about its own mean.

    >>> slow = np.sin(np.arange(48.0) / 4) + np.resize([1.5, -1.0, -0.5], 48)
    >>> summed_memory(slow, 1) < 2, summed_memory(slow, 8) > 3
    (True, True)
    """
    n = len(series)
    centred = series - series.mean()
    squares = float(centred @ centred)
    longest = float(memory(series[None], np.ones((1, n), dtype=bool))[0])
    total = 1.0
    for lag in range(1, min(lags, n // 3) + 1 if squares > 0 else 0):
        total += 2 * float(centred[lag:] @ centred[:-lag]) / squares * n / (n - lag)
        longest = max(longest, min(total / max(1 - 2 * lag / n, 0.2), n))
    return longest


def past_contrasts(values: Floats, length: int, before: int) -> tuple[float, float]:
    """Standard deviation of mean(``length`` blocks) - mean(the ``before`` blocks before them), and its degrees.

    Calibrates a jump against the jumps the stream has always made; cycles and memory are in it by construction.
    """
    sums = np.cumsum(np.insert(values, 0, 0.0))
    after = (sums[before + length :] - sums[before:-length]) / length
    contrast = after - (sums[before:-length] - sums[: -before - length]) / before
    return float(np.sqrt((contrast**2).mean())), len(contrast) / length


def compressed(series: Floats, past: Floats) -> Floats:
    """Deviations from the median of ``past`` in its robust spread, large ones logarithmically (asinh beyond 3):
    a heavy tail is no longer a jump, and a jump still is one.
    """
    centre = np.median(past)
    spread = 1.4826 * np.median(np.abs(past - centre))
    if not spread > 0:
        spread = float(np.std(past))
    if not spread > 0:
        return np.asarray(series - centre)
    return np.asarray(3 * spread * np.arcsinh((series - centre) / (3 * spread)))


def student_tail(distance: float, spread: float, degrees: float) -> float:
    """Two-sided Student tail of one ``distance / spread``."""
    return float(tail_probability(np.array([distance]), np.array([spread]), np.array([degrees]))[0])


def tail_probability(distance: Floats, spread: Floats, degrees: Floats) -> Floats:
    """Two-sided Student tail of ``distance / spread``; 1 where there are no degrees of freedom to judge by."""
    usable = (degrees > 0) & (distance > 0)
    ratio = np.divide(distance, spread, out=np.full_like(distance, 1e6), where=spread > 1e-6 * distance)
    out = np.ones_like(distance)
    out[usable] = 2 * stdtr(degrees[usable], -ratio[usable])
    return out


def benjamini_hochberg(p: Floats, q: float) -> Mask:
    """Which of the hypotheses along the last axis are rejected at false discovery rate ``q``.

    Benjamini & Hochberg 1995, J. R. Stat. Soc. B 57.

    >>> benjamini_hochberg(np.array([0.001, 0.9, 0.02, 0.03]), 0.05).tolist()
    [True, False, True, True]
    """
    count = p.shape[-1]
    if not count:
        return np.zeros(p.shape, dtype=bool)
    ordered = np.sort(p, axis=-1)
    passing = ordered <= q * np.arange(1, count + 1) / count
    limit = np.where(passing, ordered, -1.0).max(-1, keepdims=True)
    return np.asarray(p <= limit)


def split_point(series: Floats) -> tuple[int, bool]:
    """Where a series changed: index of the first value of the new regime, and whether it moved gradually.

    Least squares over all steps (two levels) and all hinges (a level, then a line); the hinge must leave
    less than 0.6 of the step's squares, since it has the freedom to mimic a step at the very end.

    >>> split_point(np.array([0.0, 0, 0, 0, 5, 5, 5])), split_point(np.array([0.0, 0, 0, 0, 1, 2, 3, 4, 5, 6]))
    ((4, False), (4, True))
    """
    count = len(series)
    centred = series - series.mean()
    squares = float(centred @ centred)
    beyond = np.cumsum(centred[::-1])[::-1]  # sum from each place to the end
    first = np.arange(1, count)
    step = squares - beyond[1:] ** 2 * (1 / first + 1 / (count - first))
    rest = count - 1 - np.arange(1, count - 3)  # length of the line behind each corner
    lever = np.cumsum(beyond[::-1])[::-1][2 : count - 2]  # the line from each corner, times the series
    hinge = squares - lever**2 / (rest * (rest + 1) * (2 * rest + 1) / 6 - (rest * (rest + 1) / 2) ** 2 / count)
    best = int(np.argmin(step))
    if len(hinge) and hinge.min() < 0.6 * step[best] - 1e-12:
        return int(np.argmin(hinge)) + 2, True
    return best + 1, False
