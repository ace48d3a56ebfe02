"""How a standstill that ended by itself is told: it was one, and it is none any more."""

from collections.abc import Sequence

from torchvitals.agent.case import headline
from torchvitals.agent.incident import SEVERITY_ORDER
from torchvitals.detectors.detector import Finding, Severity


def severity_of(findings: Sequence[Finding]) -> Severity:
    """The worst of them; ``findings`` in the order of their arrival. A standstill that is over is a warning."""
    over = _over(findings)
    counted = [finding for finding in findings if finding.kind != "hang"] if over else findings
    severities: list[Severity] = [finding.severity for finding in counted]
    if over:
        severities.append("warning")
    return min(severities, key=SEVERITY_ORDER.__getitem__)


def title_of(title: str, findings: Sequence[Finding]) -> str:
    """A headline that says that it is over, if it is."""
    return headline(f"For a while: {title}") if _over(findings) else title


def duration_note(findings: Sequence[Finding]) -> str:
    """How long it took, when it is over; empty otherwise."""
    over = _over(findings)
    return f"It went on by itself after {over.evidence['seconds']:.0f} s." if over else ""


def _over(findings: Sequence[Finding]) -> Finding | None:
    """The word that it is over, when that is the last that was said of a standstill."""
    hangs = [finding for finding in findings if finding.kind == "hang"]
    return hangs[-1] if hangs and hangs[-1].evidence.get("resumed") else None
