"""What a person is told: findings that share a cause, diagnosed."""

from typing import Any, Literal

import msgspec
from torchvitals.detectors.detector import Finding, Severity

Lifecycle = Literal["open", "acknowledged", "resolved"]
SEVERITY_ORDER: dict[Severity, int] = {"critical": 0, "error": 1, "warning": 2, "info": 3}


class RankedCause(msgspec.Struct, frozen=True, kw_only=True):
    """One possible cause with its share of belief and the sentences that earned it."""

    cause: str
    confidence: float
    evidence: list[str] = []
    against: list[str] = []


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """One root cause at work in a run. ``where`` is a module, parameter, feature or ``file:line``;
    ``rank`` is ``None`` when it is not of one rank; steps count from 0 (requests for a service).

    ``id`` is stable while the incident grows: it is made of the run and of the finding that opened it.
    """

    id: str
    kind: str
    severity: Severity
    first_step: int
    detected_step: int
    rank: int | None
    where: str
    cause: str
    confidence: float
    causes: list[RankedCause]
    title: str
    explanation: str
    remedy: str
    last_equal_step: int | None = None
    """Of ranks that part: the last step at which they are known to have been equal, before ``first_step``."""
    findings: list[Finding] = []
    stacks: list[dict[str, Any]] = []
    """Of a hang: ranks that do the same, the largest group first: ranks, doing, where, waits, frames."""
    links: dict[str, Any] = {}
    """For plots: the signals, ranks and step range worth looking at."""


def by_severity(incidents: list[Incident]) -> list[Incident]:
    """Most severe first, then the earliest."""
    return sorted(incidents, key=lambda i: (SEVERITY_ORDER[i.severity], i.first_step, i.id))
