"""What the causes of drift have in common: which finding speaks loudest, and how to say what moved."""

from collections.abc import Sequence

from torchvitals.detectors.detector import Finding


def strongest(findings: Sequence[Finding]) -> Finding | None:
    """The finding with the largest effect among those that began with the first."""
    if not findings:
        return None
    onset = min(finding.first_step for finding in findings)
    early = [finding for finding in findings if finding.first_step <= onset + SAME_ONSET]
    return max(early, key=lambda finding: (finding.value, finding.name))


SAME_ONSET = 64
"""Requests: two features that broke together are dated up to four blocks of 16 apart."""


def change_of(finding: Finding) -> str:
    """What happened to one entry, with its numbers."""
    evidence = finding.evidence
    if evidence.get("change") == "missing":
        before, after = _share(evidence, "missing_before"), _share(evidence, "missing_after")
        return f"missing in {before} of the rows before, {after} after"
    if is_zero_filled(finding):
        before, after = _share(evidence, "zero_before"), _share(evidence, "zero_after")
        return f"exactly zero in {before} of the rows before, {after} after"
    mean = f"mean {_number(evidence, 'mean_before')} → {_number(evidence, 'mean_after')}"
    return f"{mean}, standard deviation {_number(evidence, 'std_before')} → {_number(evidence, 'std_after')}"


def is_zero_filled(finding: Finding) -> bool:
    """Whether nearly every value became exactly zero: a default for what no longer arrives.

    The rows after may begin before the change does: where hardly any was zero, half of them are telling enough.
    """
    evidence = finding.evidence
    before, after = float(evidence.get("zero_before", 0.0)), float(evidence.get("zero_after", 0.0))
    return "zero" in evidence.get("moved", ()) and before < after and (after >= 0.95 or (before < 0.01 and after > 0.5))


def factor_of(finding: Finding) -> float | None:
    """By how much all values were multiplied, when mean and standard deviation grew alike; a unit or a scaler."""
    evidence = finding.evidence
    before, after = abs(float(evidence.get("mean_before", 0))), abs(float(evidence.get("mean_after", 0)))
    spread_before, spread_after = float(evidence.get("std_before", 0)), float(evidence.get("std_after", 0))
    if not (before > 0 and spread_before > 0 and after > 0):
        return None
    by_mean, by_spread = after / before, spread_after / spread_before
    alike = 0.67 <= by_mean / by_spread <= 1.5 if by_spread > 0 else False
    far = by_spread >= 1.5 or by_spread <= 0.67
    return by_spread if alike and far else None


def _share(evidence: dict[str, object], name: str) -> str:
    return f"{float(str(evidence.get(name, 0.0))):.0%}"


def _number(evidence: dict[str, object], name: str) -> str:
    return f"{float(str(evidence.get(name, 0.0))):.3g}"
