"""Work that grew for a while and grows no more: a buffer is full, a window has its length."""

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.memory_words import ENDED, LONG, PARTS

FAST = 0.25
"""Quantile of the steps of a part: the fast ones are those that nobody else on the machine has slowed down."""


def grown_up(case: Case) -> str:
    """Why steps that got slower are no fault; else empty.

    The run since the onset is cut into six parts, of which the newest half must have risen by next to nothing.
    """
    slow = case.opening
    if slow.evidence.get("shape") != "gradual" or any(finding.kind != "slowdown" for finding in case.findings):
        return ""
    series = case.history.series("step_seconds", slow.rank)
    since = (series.steps >= slow.first_step) & np.isfinite(series.values)
    steps, values = series.steps[since], series.values[since]
    if len(steps) < 2 * LONG or steps[-1] - slow.step < LONG:
        return ""
    parts = [float(np.quantile(part, FAST)) for part in np.array_split(values, PARTS)]
    if parts[-1] - parts[PARTS // 2] > ENDED * (parts[PARTS // 2] - parts[0]):
        return ""
    return f"steps got slower until about step {slow.step} and have stayed level since: what they go through is full"
