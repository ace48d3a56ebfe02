"""Weights that shrink because that is what they are trained for."""

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.step_evidence import scalars

LEARNT = 0.05
"""Of the first losses. A net that decay has brought to silence answers everything alike, and its loss stays up."""
LOOKS = 5


def trained_to_nothing(case: Case) -> str:
    """Why weights that vanish are no fault here; else empty.

    The best answer is none: the loss is the size of the output, a penalty, a residual that should be zero. Then it
    falls with the weights.
    """
    opening = case.opening
    if opening.kind != "vanishing" or opening.evidence.get("signal") != "weights":
        return ""
    losses = scalars(case, "loss")
    so_far = np.abs(losses.values[np.isfinite(losses.values) & (losses.steps <= opening.step)])
    if len(so_far) < 2 * LOOKS or not np.median(so_far[-LOOKS:]) <= LEARNT * np.median(so_far[:LOOKS]):
        return ""
    return "the loss has fallen with the weights: they are trained to be small"
