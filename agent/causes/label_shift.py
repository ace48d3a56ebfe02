"""The answers have changed and the inputs, one by one, have not: the mix of classes, or the model itself."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.drift_words import change_of, strongest
from torchvitals.agent.replaced_weights import replaced_before


class LabelShift:
    """Speaks from prediction drift without drift of any input."""

    word: ClassVar[str] = "label_shift"
    explains: ClassVar[tuple[str, ...]] = ("prediction_drift",)
    prior: ClassVar[float] = 0.3

    def weigh(self, case: Case) -> Opinion | None:
        finding = strongest(case.of_kind("prediction_drift"))
        if finding is None or case.of_kind("drift", "nonfinite", "train_mode_inference"):
            return None
        if broken(case, "served_in_training_mode") is not None or replaced_before(case, finding.first_step) is not None:
            return None
        name = finding.name or "the output"
        return Opinion(
            clues=[
                Clue(1.0, f"{name}: {change_of(finding)}"),
                Clue(1.5, "no single input has drifted"),
            ],
            title=f"Answers have shifted since request {finding.first_step}: {name}",
            explanation=(
                f"{name} changed at request {finding.first_step}: {change_of(finding)}. No single input moved, so "
                "the mix of what is asked has changed, or the model (weights, precision, preprocessing) has."
            ),
            remedy=(
                "Check whether a model version was deployed at that moment; if not, compare the class shares with "
                "fresh labels and recalibrate the decision thresholds or retrain on the new mix."
            ),
            where=finding.name,
        )
