"""Reading the step scalars of every rank: aligned arrays, absent values as masks."""

from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
Kind = TypeVar("Kind", bound=np.generic)

GRADIENTS: tuple[str, ...] = ("gradient_norm_unclipped", "gradient_norm")
"""In order of preference: clipping hides growth."""


def scalar(reading: Reading, name: str, subjects: int) -> tuple[Floats, Mask]:
    """Values and presence of one signal, padded or cut to ``subjects``; absent values are NaN. Not to be written to.

    It is cut where a detector has not met the signals it counts its subjects by, and looks at another one.
    """
    sent = reading.values.get(name)
    if sent is None:
        return _nothing(subjects)
    if reading.masked and len(sent) == subjects:
        return sent, reading.present[name]
    got, given = sent[:subjects], reading.present[name][:subjects]
    values, present = np.full(subjects, np.nan), np.zeros(subjects, dtype=bool)
    present[: len(got)] = given
    values[: len(got)] = np.where(given, got, np.nan)
    return values, present


@lru_cache(maxsize=8)
def _nothing(subjects: int) -> tuple[Floats, Mask]:
    """What nobody sent, made once."""
    values, present = np.full(subjects, np.nan), np.zeros(subjects, dtype=bool)
    values.flags.writeable = present.flags.writeable = False
    return values, present


def gradient(reading: Reading, subjects: int) -> tuple[Floats, Mask]:
    """The gradient norm before clipping where it is known, else the one that was applied."""
    values, present = scalar(reading, GRADIENTS[0], subjects)
    applied, sent = scalar(reading, GRADIENTS[1], subjects)
    if GRADIENTS[0] not in reading.values:
        return applied, sent
    return np.where(present, values, applied), present | sent


def subjects_of(reading: Reading, names: tuple[str, ...]) -> int:
    """How many subjects this reading speaks of."""
    return max((len(reading.values[name]) for name in names if name in reading.values), default=0)


def grown(state: NDArray[Kind], subjects: int, fill: float = 0) -> NDArray[Kind]:
    """``state`` with room for ``subjects`` along its first axis: itself, or a longer copy that goes on with ``fill``.

    >>> grown(np.array([7]), 3).tolist()
    [7, 0, 0]
    """
    new = subjects - len(state)
    if new <= 0:
        return state
    return np.concatenate([state, np.full((new, *state.shape[1:]), fill, dtype=state.dtype)])
