"""What the causes of a standstill have in common: the finding, and what besides the rate makes steps small."""

from typing import NamedTuple

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.history import Series
from torchvitals.agent.step_evidence import ADAPTIVE, optimizer_name, scalars
from torchvitals.detectors.detector import Finding

CLIPPED = 10.0
"""Times that clipping makes a gradient smaller from which it may be what makes the steps small."""

FELT = 100.0
"""The same where steps are not next to nothing: for a gradient of 10 a limit of 1 is usual, and one of 0.1 is not."""


RESOLUTION = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
"""Half of the last bit of a weight, relative to it: what is smaller does not change it."""
MOSTLY = 4.0
"""Times smaller from which most entries stay as they are; steps differ by as much from entry to entry."""


class Rounded(NamedTuple):
    """Weights of a type that keeps steps of ``resolution``, and by how much of themselves they were seen to move."""

    dtype: str
    resolution: float
    moved: float


def rounded_away(case: Case) -> Rounded | None:
    """Whether the type of the weights is too coarse for the steps."""
    dtype = next((str(model.get("dtype")) for model in case.facts.get("models") or []), "")
    moved = usual_move(case)
    resolution = RESOLUTION.get(dtype, 0.0)
    return Rounded(dtype, resolution, moved) if moved is not None and MOSTLY * moved < resolution else None


def usual_move(case: Case) -> float | None:
    """The median over the layers of how much of themselves they move by, at the last step that was looked at."""
    rank, optimizer = case.opening.rank, case.opening.optimizer
    updates = case.history.profiles("parameter_update_norm", rank, optimizer)
    weights = case.history.profiles("parameter_weight_norm", rank, optimizer)
    if not updates or not weights or updates[-1].values.shape != weights[-1].values.shape:
        return None
    moved, size = updates[-1].values, weights[-1].values
    known = np.isfinite(moved) & np.isfinite(size) & (moved >= 0) & (size > 0)
    return float(np.median(moved[known] / size[known])) if known.any() else None


def standstill(case: Case) -> Finding | None:
    """The finding that nothing was learnt by steps that are next to nothing."""
    return next((f for f in case.of_kind("plateau") if f.evidence.get("signal") == "update_share"), None)


def excused(still: Finding) -> bool:
    """Whether clipping or ``eps`` makes the steps of a standstill small, and not the rate."""
    return bool(still.evidence.get("epsilon_share")) or float(still.evidence.get("clipped", 1.0)) >= CLIPPED


def unclipped(case: Case) -> Series:
    """The gradient's norm before clipping, of whatever kind."""
    scaled = scalars(case, "gradient_norm_unclipped")
    return scaled if len(scaled.values) else scalars(case, "gradient_norm_unclamped")


def clipped_times(case: Case) -> float:
    """How many times larger the gradient was before clipping than what was left, in the usual step; 1 if unknown."""
    before, after = unclipped(case), scalars(case, "gradient_norm")
    _, here, there = np.intersect1d(before.steps, after.steps, return_indices=True)
    whole, left = before.values[here], after.values[there]
    known = (left > 0) & np.isfinite(whole)
    return float(np.median(whole[known] / left[known])) if known.any() else 1.0


def throttled(case: Case) -> float:
    """Times that clipping makes the steps smaller of a job that does not learn; 1 where it is not to blame."""
    times = clipped_times(case)
    return times if times >= FELT and not optimizer_name(case).startswith(ADAPTIVE) else 1.0
