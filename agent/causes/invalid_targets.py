"""The targets of a binary cross-entropy are no probabilities: -1 and 1, class numbers, masks of 255."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class InvalidTargets:
    """Speaks from the range of the targets, read off the graph of the loss."""

    word: ClassVar[str] = "invalid_targets"
    explains: ClassVar[tuple[str, ...]] = ("miswired", "divergence", "explosion")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "invalid_targets")
        if finding is None:
            return None
        low, high = float(finding.evidence.get("low", 0.0)), float(finding.evidence.get("high", 1.0))
        return Opinion(
            clues=[Clue(5.0, f"the targets of the binary cross-entropy reach from {low:.4g} to {high:.4g}")],
            title=f"Targets from {low:.3g} to {high:.3g} in a binary cross-entropy at {finding.name}",
            explanation=(
                f"The binary cross-entropy at {finding.name} expects targets from 0 to 1 and gets {low:.4g} to "
                f"{high:.4g}: it has no lowest value, the scores grow without end and the loss falls below zero."
            ),
            remedy=(
                "Map the targets to 0 and 1: (y + 1) / 2 for -1 and 1, y / 255 for a mask, one-hot or cross_entropy "
                "for numbers of classes."
            ),
            where=finding.name,
        )
