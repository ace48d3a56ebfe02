"""Rises of a series in eight bits each: a sign, five bits of magnitude, two of fraction.

A series whose next value is told by its difference to what has been told so far follows it as closely as it is coarse:
what one difference got wrong is part of the next (differential coding: Cutler 1952, US patent 2605361). Each is wrong
by an eighth at most, which is an eighth of how the series moves at that place and no share of its level: 10 GB that
wander by 1 MB are known to 0.1 MB, where the same eight bits of the level itself would say 1 GB.
"""

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.uint8]
Singles = NDArray[np.float32]

SMALLEST = 256
"""Bytes; what rises by less stays where it is until it is as much."""
UNIT = np.float32(2.0**26)
"""Bytes; half precision in these is exact to 0.05 % from 4 kB to 4 TB."""
NOTHING = 127
"""The code of a value that is not there."""
_FRACTION = 21
"""Bits of a float32 that are left out: two of the fraction stay."""
_OFFSET = (int(np.float32(SMALLEST).view(np.int32)) >> _FRACTION) - 1
_LARGEST = float(np.finfo(np.float16).max)
_HALF = 1 << _FRACTION - 1


def _decoded() -> Singles:
    codes = np.arange(256, dtype=np.int32)
    size = ((codes & NOTHING) + _OFFSET << _FRACTION).view(np.float32)
    size[codes & NOTHING == 0], size[codes & NOTHING == NOTHING] = 0.0, np.nan
    return np.where(codes > NOTHING, -size, size)


RISE = _decoded()
"""What each code stands for; NaN for nothing."""
GAINED = np.nan_to_num(RISE)
"""The same with 0 for nothing."""


def halved(level: Singles) -> NDArray[np.float16]:
    """In half precision, of ``UNIT``."""
    return np.asarray(np.clip(level / UNIT, -_LARGEST, _LARGEST), dtype=np.float16)


def coded(rises: Singles) -> Codes:
    """The nearest code of each, from ``SMALLEST`` to 6e11 bytes; NaN and what is larger are nothing.

    >>> RISE[coded(np.array([0.0, 1e6, -1e6, 1.1e6, 100.0, np.nan], dtype=np.float32))].tolist()
    [0.0, 1048576.0, -1048576.0, 1048576.0, 0.0, nan]
    """
    bits = rises.view(np.int32)
    size = ((bits & 0x7FFFFFFF) + _HALF >> _FRACTION) - _OFFSET
    return np.asarray(np.minimum(np.maximum(size, 0), NOTHING) | bits >> 24 & 128, dtype=np.uint8)
