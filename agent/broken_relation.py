"""Finding the broken relation that a cause is about."""

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding


def broken(case: Case, *relations: str) -> Finding | None:
    """The first finding of the case that tells of one of ``relations``."""
    return next((f for f in case.of_kind("miswired") if f.evidence.get("relation") in relations), None)
