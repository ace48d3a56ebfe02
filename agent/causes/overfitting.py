"""More capacity and more epochs than the training data can fill."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion


class Overfitting:
    """Speaks from the two losses that part."""

    word: ClassVar[str] = "overfitting"
    explains: ClassVar[tuple[str, ...]] = ("overfit",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        found = case.of_kind("overfit")
        if not found:
            return None
        finding = found[0]
        evidence = finding.evidence
        validation = f"the validation loss rose from {evidence['best']:.3g} to {finding.value:.3g}"
        training = f"the training loss fell from {evidence['training_then']:.3g} to {evidence['training_now']:.3g}"
        return Opinion(
            clues=[Clue(3.0, f"{validation} while {training}"), *_of_model(case)],
            title=f"Overfitting since step {finding.first_step}: validation gets worse",
            explanation=(
                f"After step {finding.first_step}, the best evaluation, {validation} by step {finding.step}, while "
                f"{training}. What is learnt since then are the training samples themselves."
            ),
            remedy=(
                f"Stop at the best evaluation (keep the checkpoint of step {finding.first_step}). More or augmented "
                "data, weight decay, dropout or a smaller model move the turning point; see also whether training "
                "and validation data come from one source."
            ),
        )


def _of_model(case: Case) -> list[Clue]:
    models = case.facts.get("models") or []
    if models and not any(model.get("dropout") for model in models):
        return [Clue(0.3, "the model has no dropout")]
    return []
