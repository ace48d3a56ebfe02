"""What a loss that leaps within one step, on an input as ever, has in common with its gradient and with the weights.

A loss is a number made of weights, input, target and the operation between them. Where the input is ordinary, three
things are left, and each leaves another trace: weights that the update before threw away are seen in their norms; a
loss that is multiplied takes its gradient with it by the same factor; and a target that is k times larger makes a
squared error k² times larger and the gradient only k times.
"""

from typing import NamedTuple

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.step_evidence import ADAPTIVE, LOOK_BACK, optimizer_name, scalars

ALIKE = 1.35
"""Loss and gradient of one loss that is multiplied differ in their factors by what batches differ by."""
APART = 5.0
"""Times by which the factors of a squared error and of its gradient differ, where its target is far off."""
LEAST_LEAP = 30.0
"""Times the largest loss of the last steps: too large steps make it leap by less, and again in the next ones."""
ENOUGH = 10
"""Losses before, from which it is known what is usual."""
STEADY = 10.0
"""Times the usual gradient: batches differ by less, and what blows up has passed it a step before the loss leaps."""
BOUND = 100.0
"""Usual updates that one step of an adaptive optimizer can be at most: (1 - β₁) / √(1 - β₂), 3.2 times the rate by
default, where 0.03 of it or more is usual."""
SPENT = 3
"""Steps at the onset and after it that may each have been as long as the bound."""


class Factors(NamedTuple):
    """How many times larger than usual the loss and its gradient were at the onset."""

    loss: float
    gradient: float

    @property
    def multiplied(self) -> bool:
        """Whether both grew by the same factor."""
        return bool(1 / ALIKE <= self.loss / self.gradient <= ALIKE)

    @property
    def squared(self) -> bool:
        """Whether the gradient grew by about the root of what the loss grew by, as far as batches tell."""
        root = float(np.sqrt(self.loss))
        return root / APART <= self.gradient <= min(self.loss / APART, root * APART)


class Thrown(NamedTuple):
    """A parameter whose norm changed by more than its optimizer can have moved it."""

    name: str
    before: float
    after: float
    usual: float
    """The largest update of it before, as a norm."""


def factors(case: Case) -> Factors | None:
    """The factors at the onset; ``None`` where the loss did not leap, or its gradient is not known there and before."""
    onset = case.opening.first_step
    losses = np.abs(scalars(case, "loss").before(onset, LOOK_BACK))
    loss, gradient = _factor(case, "loss", LEAST_LEAP), _factor(case, "tripwire_norm", 0.0)
    gradient = gradient or _factor(case, "gradient_norm_unclipped", 0.0)
    return Factors(loss, gradient) if loss and gradient and len(losses) >= ENOUGH else None


def _factor(case: Case, name: str, least: float) -> float | None:
    """Times the usual at the onset; ``None`` where it is not finite, was not steady before, or leapt by too little."""
    series, onset = scalars(case, name), case.opening.first_step
    at, before = series.at(onset), np.abs(series.before(onset, LOOK_BACK))
    if at is None or not np.isfinite(at) or len(before) < 2 or not np.isfinite(before).all():
        return None
    usual, largest = float(np.median(before)), float(before.max())
    if not usual > 0 or not largest <= STEADY * usual or not abs(at) > least * largest:
        return None
    return abs(at) / usual


def thrown(case: Case) -> Thrown | None:
    """The parameter that moved farthest beyond what an adaptive optimizer can do, over the onset; else ``None``.

    Only such optimizers bound their steps, whatever the gradient: so a bad target cannot throw their weights.
    """
    opening = case.opening
    if not optimizer_name(case).startswith(ADAPTIVE):
        return None
    weights = case.history.profiles("parameter_weight_norm", opening.rank, opening.optimizer)
    updates = case.history.profiles("parameter_update_norm", opening.rank, opening.optimizer)
    earlier = [profile for profile in weights if profile.step < opening.first_step - 1]
    later = [profile for profile in weights if opening.first_step - 1 <= profile.step <= opening.step]
    past = [profile.values for profile in updates if profile.step < opening.first_step - 1]
    if not earlier or not later or len({len(v) for v in (*past, earlier[-1].values, later[0].values)}) != 1:
        return None
    usual = np.nanmax(np.stack(past[-LOOK_BACK:]), axis=0)
    gap = later[0].step - earlier[-1].step
    moved = np.abs(later[0].values - earlier[-1].values)
    beyond = np.where(usual > 0, moved / np.maximum(usual * (gap + SPENT * BOUND), 1e-30), 0.0)
    most = int(np.argmax(np.nan_to_num(beyond, posinf=0.0)))
    if not 1.0 < beyond[most] < np.inf:
        return None
    return Thrown(
        later[0].entries[most], float(earlier[-1].values[most]), float(later[0].values[most]), float(usual[most])
    )


def in_words(factor: float) -> str:
    """A factor to two digits, without an exponent."""
    return f"{float(f'{factor:.2g}'):,.10g}" if factor < 1e6 else f"{factor:.1e}"
