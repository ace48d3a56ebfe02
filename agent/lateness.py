"""What a late rank costs, in words that the causes of it share."""

from torchvitals.agent.case import Case
from torchvitals.detectors.detector import Finding

COMMUNICATION = "communication"


def late_ranks(case: Case) -> list[Finding]:
    """The findings of a rank that comes late; that all wait for the network is another matter."""
    return [finding for finding in case.of_kind("straggler") if finding.evidence.get("phase") != COMMUNICATION]


def slow_network(case: Case) -> list[Finding]:
    """The findings that collectives take longer although all ranks are there."""
    return [finding for finding in case.of_kind("straggler") if finding.evidence.get("phase") == COMMUNICATION]


def last_as_a_rule(finding: Finding) -> str:
    """``rank 2 is the last of 4 to come to 94% of the collectives, 31 ms after half of them``."""
    evidence = finding.evidence
    return (
        f"rank {finding.rank} is the last of {evidence['ranks']} to come to {evidence['last_share']:.0%} of the "
        f"collectives, {1000 * evidence['late_seconds']:.0f} ms after half of them"
    )


def whole_job(finding: Finding) -> str:
    """What everybody would gain."""
    step, late = float(finding.evidence["step_seconds"]), float(finding.evidence["late_seconds"])
    share = min(late / step, 1.0) if step > 0 else 0.0
    return f"The others wait meanwhile: that is {share:.0%} of every step of {1000 * step:.0f} ms, on all ranks."
