"""An input no longer arrives: NaN, or the zero that somebody fills in for it."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.drift_words import change_of, is_zero_filled, strongest


class MissingFeature:
    """Speaks from inputs whose share of missing values or of exact zeros has jumped."""

    word: ClassVar[str] = "missing_feature"
    explains: ClassVar[tuple[str, ...]] = ("drift", "prediction_drift", "nonfinite")
    prior: ClassVar[float] = 0.3

    def weigh(self, case: Case) -> Opinion | None:
        absent = [f for f in case.of_kind("drift") if f.evidence.get("change") == "missing" or is_zero_filled(f)]
        finding = strongest(absent)
        if finding is None:
            return None
        name = finding.name or "An input"
        clues = [Clue(2.0, f"{name}: {change_of(finding)}")]
        if finding.evidence.get("change") == "missing":
            clues.append(Clue(2.0, "the values are NaN, not different numbers"))
        else:
            clues.append(Clue(2.5, "values that were hardly ever zero are exactly zero: a default stands in for them"))
        return Opinion(
            clues=clues,
            title=f"{name} is missing since request {finding.first_step}"[:79],
            explanation=f"{name}, from request {finding.first_step} on: {change_of(finding)}.",
            remedy=(
                f"Find out why {name} no longer arrives (a renamed or dropped column, a failed join, a default of "
                "zero), and refuse or flag requests without it: the model answers them as if nothing were wrong."
            ),
            where=finding.name,
            first_step=finding.first_step,
        )
