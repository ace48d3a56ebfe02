"""What came on top: by how much a part of each step grew when steps became slow, and where the job was found since."""

from typing import Any

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.history import Series

LEAST_SEEN = 0.02
"""Seconds that a step must have gained for its place to be found by looks. A look needs the interpreter's lock, which
Python code hands over every 5 ms: of less than a few such turns looks find the next call that lets go of it. Of 6 ms in
`sorted`, 7 of 8 looks found `torch.randn` at the head of the loop."""


def added(series: Series, onset: int) -> float:
    """By how many seconds the median grew at step ``onset``; 0 where the phase was not seen."""
    finite = np.isfinite(series.values)
    before, after = series.values[finite & (series.steps < onset)], series.values[finite & (series.steps >= onset)]
    if not len(after):
        return 0.0
    return float(np.median(after)) - (float(np.median(before)) if len(before) else 0.0)


def dwelling(case: Case, onset: int, seconds: float) -> dict[str, Any]:
    """Where the job was found most often since step ``onset``, from which on steps take ``seconds`` longer.

    As it was told last; empty where nobody looked since, or where looks would find something else.
    """
    if seconds < LEAST_SEEN:
        return {}
    looks = (event.details for _, event in reversed(case.events_of("dwells")) if event.step > onset)
    return next(looks, {})
