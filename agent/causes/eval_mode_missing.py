"""Answers are given with dropout or batch statistics at work: nobody called ``model.eval()``, or a layer ignores it."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.detectors.detector import Finding


class EvalModeMissing:
    """Speaks from the mode in which forwards without gradients were made, and from dropout seen in evaluation mode."""

    word: ClassVar[str] = "eval_mode_missing"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "dropout_in_evaluation", "evaluated_in_training_mode", "served_in_training_mode")
        if finding is None:
            return None
        if finding.evidence["relation"] == "served_in_training_mode":
            return _of_service(finding)
        return _of_dropout(finding) if finding.evidence["relation"] == "dropout_in_evaluation" else _of_mode(finding)


def _of_dropout(finding: Finding) -> Opinion:
    return Opinion(
        clues=[Clue(4.0, f"the dropout at {finding.name} dropped values while the model was in evaluation mode")],
        title=f"Dropout at {finding.name} is at work in evaluation",
        explanation=(
            f"The functional dropout at {finding.name} drops by default, whatever the mode of the model: answers of "
            "an evaluation are random, and worse than the model is."
        ),
        remedy="Pass `training=self.training` to it, or use an nn.Dropout module, which knows the mode.",
        where=finding.name,
    )


def _of_service(finding: Finding) -> Opinion:
    count, first, layer = finding.evidence.get("count", 0), finding.first_step, finding.name
    return Opinion(
        clues=[Clue(4.0, f"{count} requests in a row were answered in training mode, and `{layer}` is at work in it")],
        title=f"Requests are answered in training mode from request {first} on",
        explanation=(
            f"From request {first} on the model answers in training mode, and it has layers that answer otherwise then "
            f"(`{layer}`, for one): dropout makes answers random, and a batch norm lets each answer depend on who else "
            "is in the batch, and changes its statistics with every request."
        ),
        remedy="Call model.eval() once the weights are loaded: a model that is built or loaded is in training mode.",
        where=layer,
    )


def _of_mode(finding: Finding) -> Opinion:
    count, bursts = finding.value, finding.evidence.get("bursts", 1)
    return Opinion(
        clues=[
            Clue(3.0, f"{bursts} evaluations, the last of {count:.0f} forwards, ran without gradients in training mode")
        ],
        title=f"Evaluations run in training mode from step {finding.first_step} on",
        explanation=(
            f"{count:.0f} forwards without gradients in a row were made while the model was in training mode, and it "
            "has dropout or batch normalisation: what is measured is not the model, and the running statistics take "
            "in the validation data."
        ),
        remedy="Call model.eval() before the evaluation and model.train() after it.",
    )
