"""Units that go flat while the job learns on: the way of a net to large answers, and no fault."""

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.step_evidence import scalars

SIDE = 16
"""Losses in a median: just before the units went flat, just after, and the newest."""
FALLING = 0.97
"""Of the lower one of the first two, at most: the noise of medians of 16 losses is 1 to 2 %."""


def flat_but_learning(case: Case) -> str:
    """Why units that have gone flat are no fault here; else empty.

    Little gradient passes them, and what comes before them learns slowly. Where that does harm, the loss stays where
    it was or rises. A critic with values far from zero, or a regression on targets that nobody scaled, drives units to
    their ends to answer with their sum; its loss falls all the while. What it comes to later is looked for by itself.
    """
    opening = case.opening
    if opening.evidence.get("from_start") or any(finding.kind != "saturation" for finding in case.findings):
        return ""
    losses = scalars(case, "loss")
    since = losses.values[(losses.steps >= opening.first_step) & (losses.steps <= opening.step)]
    before = losses.before(opening.first_step, SIDE)
    if len(before) < SIDE or len(since) < 2 * SIDE:
        return ""
    levels = [float(np.median(part)) for part in (before, since[:SIDE], since[-SIDE:])]
    if not (np.isfinite(levels).all() and 0 < levels[2] <= FALLING * min(levels[:2])):
        return ""
    return f"the loss fell on, from {levels[0]:.3g} to {levels[2]:.3g}, after units of {opening.name} had gone flat"
