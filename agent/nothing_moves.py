"""What the causes of a standstill have in common: the finding, and what besides the rate makes steps small."""

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding

CLIPPED = 10.0
"""Times that clipping makes a gradient smaller from which it may be what makes the steps small."""


def standstill(case: Case) -> Finding | None:
    """The finding that nothing was learnt by steps that are next to nothing."""
    return next((f for f in case.of_kind("plateau") if f.evidence.get("signal") == "update_share"), None)


def excused(still: Finding) -> bool:
    """Whether clipping or ``eps`` makes the steps of a standstill small, and not the rate."""
    return bool(still.evidence.get("epsilon_share")) or float(still.evidence.get("clipped", 1.0)) >= CLIPPED
