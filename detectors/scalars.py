"""Reading the step scalars of every rank: aligned arrays, absent values as masks."""

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading

Floats = NDArray[np.float64]
Reals = NDArray[np.floating[Any]]
"""In single or double precision."""
Singles = NDArray[np.float32]
Mask = NDArray[np.bool_]
Kind = TypeVar("Kind", bound=np.generic)
Made = TypeVar("Made")

GRADIENTS: tuple[str, ...] = ("gradient_norm_unclipped", "gradient_norm")
"""In order of preference: clipping hides growth."""
ZERO = np.array(0.0)
"""As an array it is compared in half the time."""
LEAST = np.array(1e-300)
"""Smaller magnitudes are taken as this one: exact zeros stay finite."""
LARGEST = 1e30
"""Larger ones are cut here where they are kept."""
MOST, FEWEST = np.array(LARGEST), np.array(-LARGEST)
LOSS, NORM, TRIPWIRE = 0, 1, 2
"""Rows of the magnitudes."""


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


def made_once(make: Callable[[Reading, int], Made]) -> Callable[[Reading, int], Made]:
    """Let all detectors that read so many subjects share what is made of a reading."""

    @wraps(make)
    def remembered(reading: Reading, subjects: int) -> Made:
        key = (make.__name__, subjects)
        if key not in reading.memo:
            reading.memo[key] = make(reading, subjects)
        made: Made = reading.memo[key]
        return made

    return remembered


class Losses(NamedTuple):
    """The losses of one step: who sent one that was applied, where it is finite, and where it is below zero."""

    values: Floats
    singles: NDArray[np.float32]
    """The same as they are kept: operations on one of each precision take ten times as long for a single rank."""
    sent: Mask
    usable: Mask
    negative: Mask | None
    """None where nobody's is."""


@made_once
def losses(reading: Reading, subjects: int) -> Losses:
    """Those of skipped attempts are left out: they may be summed into the one that is here."""
    values, sent = scalar(reading, "loss", subjects)
    if "skipped_steps" in reading.values:
        skipped, _ = scalar(reading, "skipped_steps", subjects)
        skips = skipped > ZERO
        sent = sent & ~skips if np.count_nonzero(skips) else sent
    negative = values < ZERO
    finite = np.isfinite(values)
    usable = sent if np.count_nonzero(finite) == subjects else sent & finite
    return Losses(values, single(values), sent, usable, negative if np.count_nonzero(negative) else None)


@made_once
def rates(reading: Reading, subjects: int) -> tuple[NDArray[np.float32], Mask]:
    """Magnitudes of the learning rates of one step, and who told theirs."""
    rate, told = scalar(reading, "learning_rate", subjects)
    return single(np.abs(rate)), told


class Magnitudes(NamedTuple):
    """Decades (log10) of loss, gradient norm and trip-wire norm: (3, subjects).

    NaN where nothing was sent, infinite where it was not finite; ``usable`` is where it was, ``sent`` who sent any.
    """

    heights: NDArray[np.float32]
    usable: Mask
    sent: tuple[Mask, Mask, Mask]


@made_once
def magnitudes(reading: Reading, subjects: int) -> Magnitudes:
    """Those of one step."""
    said = losses(reading, subjects)
    norm, has_norm = gradient(reading, subjects)
    small, has_small = scalar(reading, "tripwire_norm", subjects)
    values, sent = np.array([said.values, norm, small]), (said.sent, has_norm, has_small)
    usable = np.isfinite(values)
    heights = decades(values)
    if np.count_nonzero(usable) < usable.size:
        heights[~usable & sent] = np.inf
    if said.usable is not said.sent:
        usable[LOSS] = said.usable
    return Magnitudes(heights.astype(np.float32), usable, sent)


def decades(values: Reals) -> Floats:
    """Their magnitudes as log10, exact zeros as -300."""
    heights: Floats = np.log10(np.maximum(np.abs(values), LEAST))
    return heights


def gradient(reading: Reading, subjects: int) -> tuple[Floats, Mask]:
    """The gradient norm before clipping where it is known, else the one that was applied."""
    if GRADIENTS[0] not in reading.values:
        return scalar(reading, GRADIENTS[1], subjects)
    values, present = scalar(reading, GRADIENTS[0], subjects)
    if np.count_nonzero(present) == subjects:
        return values, present
    applied, sent = scalar(reading, GRADIENTS[1], subjects)
    return np.where(present, values, applied), present | sent


def subjects_of(reading: Reading, names: tuple[str, ...]) -> int:
    """How many subjects this reading speaks of."""
    most = 0
    for name in names:
        if name in reading.values:
            most = max(most, len(reading.values[name]))
            if reading.masked:
                break
    return most


def single(values: Floats) -> NDArray[np.float32]:
    """As float32, cut at ``LARGEST``: what is made of them must stay finite."""
    cut: Floats = np.maximum(np.minimum(values, MOST), FEWEST)  # for one subject a quarter of the time of np.clip
    return cut.astype(np.float32)


def shortest(value: np.floating[Any]) -> float:
    """The shortest number that a float32 may have come from.

    >>> float(np.float32(2.3)), shortest(np.float32(2.3))
    (2.299999952316284, 2.3)
    """
    return float(str(np.float32(value)))


def grown(state: NDArray[Kind], subjects: int, fill: float = 0) -> NDArray[Kind]:
    """``state`` with room for ``subjects`` along its first axis: itself, or a longer copy that goes on with ``fill``.

    >>> grown(np.array([7]), 3).tolist()
    [7, 0, 0]
    """
    new = subjects - len(state)
    if new <= 0:
        return state
    return np.concatenate([state, np.full((new, *state.shape[1:]), fill, dtype=state.dtype)])


def worked(reading: Reading, ranks: int, longest: Floats) -> Floats:
    """Seconds of forward and backward of each rank, those that were timed; NaN where none was, or more is broken."""
    forward, backward = scalar(reading, "forward_seconds", ranks)[0], scalar(reading, "backward_seconds", ranks)[0]
    sound = (forward > ZERO) & (backward > ZERO) & (np.maximum(forward, backward) < longest)
    if np.count_nonzero(sound) == ranks:
        return np.asarray(np.minimum(forward + backward, longest))
    parts = np.array([forward, backward])
    total = np.where((parts > ZERO) & (parts < longest), parts, 0.0).sum(axis=0)
    return np.where(total > 0, np.minimum(total, longest), np.nan)
