"""Reading the step scalars of every rank: aligned arrays, absent values as masks."""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

GRADIENTS: tuple[str, ...] = ("gradient_norm_unclipped", "gradient_norm")
"""In order of preference: clipping hides growth."""


def scalar(reading: Reading, name: str, subjects: int) -> tuple[Floats, Mask]:
    """Values and presence of one signal, padded or cut to ``subjects``; absent values are NaN.

    It is cut where a detector has not met the signals it counts its subjects by, and looks at another one.
    """
    values, present = np.full(subjects, np.nan), np.zeros(subjects, dtype=bool)
    if name in reading.values:
        got = reading.values[name][:subjects]
        present[: len(got)] = reading.present[name][:subjects]
        values[: len(got)] = np.where(present[: len(got)], got, np.nan)
    return values, present


def gradient(reading: Reading, subjects: int) -> tuple[Floats, Mask]:
    """The gradient norm before clipping where it is known, else the one that was applied."""
    values, present = scalar(reading, GRADIENTS[0], subjects)
    applied, sent = scalar(reading, GRADIENTS[1], subjects)
    return np.where(present, values, applied), present | sent


def subjects_of(reading: Reading, names: tuple[str, ...]) -> int:
    """How many subjects this reading speaks of."""
    return max((len(reading.values[name]) for name in names if name in reading.values), default=0)
