"""The inputs come from somewhere else: a unit, a scaler, a sensor, another population."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.drift_words import change_of, factor_of, is_zero_filled, strongest
from torchvitals.detectors.detector import Finding


class FeatureShift:
    """Speaks from drift of the inputs that is not missing values."""

    word: ClassVar[str] = "feature_shift"
    explains: ClassVar[tuple[str, ...]] = ("drift", "prediction_drift")
    prior: ClassVar[float] = 0.3

    def weigh(self, case: Case) -> Opinion | None:
        inputs = case.of_kind("drift")
        finding = strongest(inputs)
        if finding is None:
            return None
        others = len({f.name for f in inputs}) - 1
        pace = "gradually" if finding.evidence.get("shape") == "gradual" else "at once"
        return Opinion(
            clues=_clues(case, finding),
            title=f"{finding.name or 'An input'} has shifted since request {finding.first_step}",
            explanation=(
                f"{finding.name or 'An input'} changed {pace} at request {finding.first_step}: {change_of(finding)}."
                f"{f' {others} other inputs moved with it.' if others > 0 else ''}{_answers(case)}"
            ),
            remedy=_remedy(finding, others),
            where=finding.name,
            first_step=min(finding.first_step, *(f.first_step for f in inputs)),
        )


def _clues(case: Case, finding: Finding) -> list[Clue]:
    clues = [Clue(2.0, f"{finding.name or 'an input'}: {change_of(finding)} ({finding.value:.2g} standard deviations)")]
    factor = factor_of(finding)
    if factor is not None:
        clues.append(Clue(1.0, f"mean and spread were both multiplied by about {factor:.3g}: a unit or a scaler"))
    if case.of_kind("prediction_drift"):
        clues.append(Clue(0.5, "the answers moved with the inputs"))
    if finding.evidence.get("change") == "missing" or is_zero_filled(finding):
        clues.append(Clue(-3.0, "values are absent rather than different"))
    return clues


def _answers(case: Case) -> str:
    outputs = case.of_kind("prediction_drift")
    return f" The answers followed: {change_of(outputs[0])} in {outputs[0].name}." if outputs else ""


def _remedy(finding: Finding, others: int) -> str:
    factor = factor_of(finding)
    if factor is not None:
        return (
            f"Compare the units and the scaler in front of the model with those of training: values are "
            f"{factor:.3g} times what they were. Do not trust answers since request {finding.first_step}."
        )
    if others > 2:
        return (
            "Many inputs moved together: look at what they share, the preprocessing (scaler, normalization, order of "
            "columns) or the source. If the population really changed, evaluate on fresh labels and retrain."
        )
    return (
        f"Look at where {finding.name or 'this input'} comes from and at what was deployed there. If the population "
        "really changed, evaluate on fresh labels and retrain."
    )
