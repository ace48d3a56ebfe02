"""A critic whose targets are what a policy earns: its loss grows when the policy first finds a reward."""

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.step_evidence import MOST_OPTIMIZERS, leap, leap_elsewhere

OFTEN = 0.25
"""Share of losses below zero. What a policy's is weighted by has both signs; other losses are hardly ever negative."""
ENOUGH = 16
SETTLED = 2.0
"""Times the first losses after the leap, above which the newest have grown on. What comes of steps too large does."""
FOLLOWS = ("divergence", "explosion", "loss_spike", "plateau")


def moving_targets(case: Case) -> str:
    """Why a loss that has grown is no fault here; else empty.

    Another optimizer of the job has a loss that is below zero as often as not, as a policy's is. A critic learns what
    that policy earns: nothing at first, which is learnt in no time, and a great deal later. A loss that grows out of
    all proportion is one once it has been seen not to grow on; what follows a leap of the learning rate is told.
    """
    opening = case.opening
    if opening.kind not in FOLLOWS[:2] or any(finding.kind not in FOLLOWS for finding in case.findings):
        return ""
    if opening.evidence.get("signal", "loss") != "loss":
        return ""
    if any(finding.kind == "explosion" for finding in case.findings) and not _has_settled(case):
        return ""
    if leap(case, "learning_rate") or leap_elsewhere(case, "learning_rate"):
        return ""
    for number in range(MOST_OPTIMIZERS):
        others = case.history.series("loss", opening.rank, number) if number != opening.optimizer else None
        before = others.values[others.steps <= opening.step] if others is not None else np.zeros(0)
        if len(before) >= ENOUGH and float((before < 0).mean()) >= OFTEN:
            return f"the loss of optimizer {number} is a policy's, and what this one learns is what that one earns"
    return ""


def _has_settled(case: Case) -> bool:
    """Whether the loss has gone from one level to another, and stays there."""
    own = case.history.series("loss", case.opening.rank, case.opening.optimizer)
    since = own.values[own.steps >= case.opening.first_step]
    if len(since) < 2 * ENOUGH or not np.isfinite(since).all():
        return False
    return bool(np.median(since[-ENOUGH:]) <= SETTLED * np.median(since[:ENOUGH]))
