"""An evaluation switched the model to evaluation mode, and nobody switched it back."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class TrainModeMissing:
    """Speaks from the mode of the forwards that are trained on."""

    word: ClassVar[str] = "train_mode_missing"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "left_in_evaluation_mode")
        if finding is None:
            return None
        step = finding.first_step
        return Opinion(
            clues=[Clue(4.0, f"{finding.value:.0f} steps in a row were trained in evaluation mode, and none before")],
            title=f"Training goes on in evaluation mode from step {step} on",
            explanation=(
                f"Up to step {step} the model trained in training mode; since then its training forwards run in "
                "evaluation mode. Dropout is off and batch norms use, and no longer learn, their running statistics."
            ),
            remedy="Call model.train() after each evaluation, best as the first line of the training loop's epoch.",
            where="model",  # of what follows from it a layer may be known, which is not where it began
        )
