"""A run was resumed without the optimizer's state: moments and step counts of the checkpoint were left in the file."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class MissingOptimizerState:
    """Speaks from a checkpoint of which the weights were loaded and the optimizer's state was not."""

    word: ClassVar[str] = "missing_optimizer_state"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "optimizer_state_left_behind")
        if finding is None:
            return None
        name = finding.evidence.get("optimizer", "optimizer")
        return Opinion(
            clues=[
                Clue(3.5, f"the file held the state of an {name} set as this one is, and it was not loaded"),
                Clue(0.5, "every weight of the model was loaded"),
            ],
            title=f"Resumed at step {finding.first_step} without the state of the {name}",
            explanation=(
                f"A checkpoint with weights and with the state of an {name} was read. The weights were loaded and the "
                "state was not: moments begin at zero, and the first steps are those of a fresh optimizer."
            ),
            remedy=f"Call {name}.load_state_dict with the checkpoint's optimizer entry before the first step.",
            where="optimizer",
        )
