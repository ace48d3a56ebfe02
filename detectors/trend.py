"""Slopes that do not mind outliers, with intervals that know that neighbouring values resemble each other."""

from typing import NamedTuple

import numpy as np
from torchvitals.detectors.block_statistics import Floats


class Slope(NamedTuple):
    """Per unit of ``x``, with a confidence interval."""

    value: float
    low: float
    high: float


def theil_sen(x: Floats, y: Floats, z: float) -> Slope:
    """Median of all pairwise slopes (Theil 1950; Sen 1968) with Sen's interval of ``z`` standard deviations.

    The variance of Kendall's S is inflated by the autocorrelation of the residuals (Hamed & Rao 1998, in its
    lag-1 form): blocks of a wandering series are not independent witnesses.

    >>> theil_sen(np.arange(8.0), 3 * np.arange(8.0), 2.6)
    Slope(value=3.0, low=3.0, high=3.0)
    """
    count = len(x)
    first, second = np.triu_indices(count, 1)
    slopes = np.sort((y[second] - y[first]) / (x[second] - x[first]))
    value = float(np.median(slopes))
    residual = y - value * x
    residual = residual - residual.mean()
    power = float(residual @ residual)
    r = float(residual[1:] @ residual[:-1]) / power if power > 0 else 0.0
    r = min(max(r, 0.0), 0.9)
    spread = z * np.sqrt(count * (count - 1) * (2 * count + 5) / 18 * (1 + r) / (1 - r))
    low = int(np.clip((len(slopes) - spread) / 2, 0, len(slopes) - 1))
    high = int(np.clip((len(slopes) + spread) / 2, 0, len(slopes) - 1))
    return Slope(value, float(slopes[low]), float(slopes[high]))


def corner(y: Floats) -> int:
    """Index at which a level turned into a rising line: least squares over all hinges.

    >>> corner(np.array([1.0, 1, 1, 1, 2, 3, 4, 5]))
    3
    """
    places = range(len(y) - 2)
    squares = []
    for place in places:
        line = np.maximum(np.arange(len(y)) - place, 0).astype(np.float64)
        line -= line.mean()
        centred = y - y.mean()
        squares.append(float(((centred - (line @ centred) / (line @ line) * line) ** 2).sum()))
    return int(np.argmin(squares))
