"""An input no longer arrives: NaN, or the zero that somebody fills in for it."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.drift_words import change_of, is_zero_filled, strongest
from torchvitals.detectors.detector import Finding


class MissingFeature:
    """Speaks from inputs whose share of missing values or of exact zeros has jumped."""

    word: ClassVar[str] = "missing_feature"
    explains: ClassVar[tuple[str, ...]] = ("drift", "prediction_drift", "nonfinite")
    prior: ClassVar[float] = 0.3

    def weigh(self, case: Case) -> Opinion | None:
        answered = next((f for f in case.of_kind("nonfinite") if f.evidence.get("given")), None)
        if answered is not None:
            return _answered_with_nan(answered)
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
            title=f"{name} is missing since request {finding.first_step}",
            explanation=f"{name}, from request {finding.first_step} on: {change_of(finding)}.",
            remedy=(
                f"Find out why {name} no longer arrives (a renamed or dropped column, a failed join, a default of "
                "zero), and refuse or flag requests without it: the model answers them as if nothing were wrong."
            ),
            where=finding.name,
            first_step=finding.first_step,
        )


def _answered_with_nan(finding: Finding) -> Opinion:
    """An input was NaN, and so was the answer."""
    name, request = str(finding.evidence["given"]), finding.first_step
    return Opinion(
        clues=[Clue(4.0, f"{name} was NaN in request {request}, and so was its answer")],
        title=f"{name} is NaN in request {request}, and the answer is too",
        explanation=f"{name} was NaN in request {request}, and so was its answer: a model passes NaN on.",
        remedy=(
            f"Find out why {name} does not arrive (a failed join, a division before the model), and refuse requests "
            "without it, or fill in what training has filled in."
        ),
        where=name,
        first_step=request,
    )
