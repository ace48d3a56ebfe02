"""Numbers in sixteen bits: a sign, seven bits of exponent, from 1e-15 to 1e23, and eight of fraction.

Half precision ends at 65,504, which losses that are summed over a batch exceed.
"""

import numpy as np
from numpy.typing import NDArray

Shorts = NDArray[np.uint16]
Singles = NDArray[np.float32]
ABSENT = 0x7FFF
_LEAST = 2.0**-50
_DROPPED = 15
"""Bits of a float32's fraction."""
_OFFSET = (int(np.float32(_LEAST).view(np.int32)) >> _DROPPED) - 1
_GOLDEN = (5**0.5 - 1) / 2


def _values() -> Singles:
    codes = np.arange(1 << 16, dtype=np.int32)
    size = ((codes & ABSENT) + _OFFSET << _DROPPED).view(np.float32)
    size[codes & ABSENT == 0], size[codes & ABSENT == ABSENT] = 0.0, np.nan
    return np.where(codes > ABSENT, -size, size)


VALUE = _values()
"""What each code stands for; NaN for an absent one."""


def shortened(values: Singles, turn: int) -> Shorts:
    """The code of each number: the one below or above it, in turns, so that means do not lie between two codes.

    Whoever is at a third of the way from one code to the next is rounded up in a third of the turns (dither by a golden
    section, which is even over any number of turns). What has a code of its own keeps it.

    >>> sum(VALUE[shortened(np.array([2.3], dtype=np.float32), turn)[0]] for turn in range(64)) / 64
    np.float32(2.3000488)
    >>> VALUE[shortened(np.array([0.5, -7.0, 0.0, 1e-30, 1e30], dtype=np.float32), 1)].tolist()
    [0.5, -7.0, 0.0, 0.0, 3.0046056747258118e+23]
    """
    bits = values.view(np.int32)
    up = int(turn * _GOLDEN % 1 * (1 << _DROPPED))
    size = np.minimum((bits & 0x7FFFFFFF) >> 1, (0x7F800000 >> 1) - 1) + (up >> 1) >> _DROPPED - 1
    return np.asarray(np.minimum(np.maximum(size - _OFFSET, 0), ABSENT - 1) | bits >> 16 & 0x8000, dtype=np.uint16)
