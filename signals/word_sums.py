"""The weighted sum of the words of many tensors, in 52 bits: how it is made, and what the difference of two tells.

A rank adds up the 8-byte words of each tensor, multiplies each sum by an odd weight of its own, adds those up modulo
2**64 and folds the result into what a float64 holds exactly. Of 64 bits 40 stay as they are, and 12 more are known in
pairs: enough to see whether two such numbers are one flipped bit apart, or one number of one tensor.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FOLDED_BITS = 52
"""A float64 holds integers of up to 53 bits exactly."""
WORD = 1 << 64
FOLDED = (1 << FOLDED_BITS) - 1
MIXED = 64 - FOLDED_BITS
"""So many bits at the bottom have those at the top in them."""
HALF = 32
"""Bits of a float32, of which two lie in a word."""


def odd_weights(count: int) -> NDArray[np.int64]:
    """``count`` odd weights: splitmix64 of the index (Steele et al., OOPSLA 2014)."""
    state = (np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E37_79B9_7F4A_7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return ((state ^ (state >> np.uint64(31))) | np.uint64(1)).view(np.int64)


def fold(value: int) -> float:
    """An int64 in 52 bits, as a float64 that holds it exactly; never negative.

    >>> fold(-1).is_integer() and 0 <= fold(-1) < 2**52
    True
    """
    value &= WORD - 1
    return float((value ^ (value >> FOLDED_BITS)) & FOLDED)


def apart(first: float, second: float, places: Iterable[int]) -> str:
    """How much of the tensors differs between two sums: ``bit``, ``element`` or ``more``; empty if they do not tell.

    Args:
        first: a folded sum; one that was made on a device is no integer and tells nothing.
        second: another.
        places: where the tensor that differs may lie among those of 8 bytes and more. About 50 ms for each.

    A ``float32`` is an ``element``, or two of 16 bits that share its half of a word; of a ``float64`` only a bit can
    be told. What is ``more`` is taken for an element once in 128, and where each number of a large tensor was
    multiplied by a power of two.

    >>> words = odd_weights(4)
    >>> before = fold(int(words[0]) * 1000)
    >>> flipped, written = (fold(int(words[0]) * 1000 + int(words[2]) * change) for change in (1 << 45, -70_001))
    >>> apart(before, flipped, [2]), apart(before, written, [2]), apart(before, 12345.0, [2])
    ('bit', 'element', 'more')
    """
    if first == second or not all(number.is_integer() and 0 <= number <= FOLDED for number in (first, second)):
        return ""
    one, two = int(first), int(second)
    weights = odd_weights(max(places := list(places)) + 1).view(np.uint64)[places]
    if any(_one_bit(one, two, weight) for weight in weights):
        return "bit"
    upper = (one ^ two) >> MIXED & ((1 << (HALF - MIXED)) - 1) == 0
    return "element" if upper or any(_lower_half(one, two, int(weight)) for weight in weights) else "more"


def _words(folded: int) -> NDArray[np.uint64]:
    """All sums that fold to this one."""
    tops = np.arange(1 << MIXED, dtype=np.uint64)
    return (tops << np.uint64(FOLDED_BITS)) | (np.uint64(folded) ^ tops)


def _one_bit(one: int, two: int, weight: np.uint64) -> bool:
    bits = np.uint64(1) << np.arange(64, dtype=np.uint64)
    changes = np.concatenate([bits, np.uint64(0) - bits]) * weight
    sums = _words(one)[:, np.newaxis] + changes[np.newaxis, :]
    return bool((((sums ^ (sums >> np.uint64(FOLDED_BITS))) & np.uint64(FOLDED)) == np.uint64(two)).any())


def _lower_half(one: int, two: int, weight: int) -> bool:
    """Whether a change of less than 2**32 in a sum of words of this ``weight`` leads from one to the other."""
    inverse = np.uint64(pow(weight, -1, WORD))
    others, least, span = _words(two), np.uint64((1 << HALF) - 1), np.uint64((1 << (HALF + 1)) - 1)
    return any(bool(((others - word) * inverse + least < span).any()) for word in _words(one))
