"""A softmax is taken over the rows of a batch, where the loss wants one over the classes of each row."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class SoftmaxOverBatch:
    """Speaks from the graph of the loss: a likelihood of labels is given shares that sum to one down the batch."""

    word: ClassVar[str] = "softmax_over_batch"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "softmax_over_batch")
        if finding is None:
            return None
        rows, classes = int(finding.evidence.get("rows", 0)), int(finding.evidence.get("classes", 0))
        said = f"the loss at {finding.name} is given a log_softmax over {rows} rows, and there are {classes} classes"
        return Opinion(
            clues=[Clue(5.0, said)],
            title=f"The softmax under {finding.name} runs over the batch, not the classes",
            explanation=(
                f"{said[0].upper()}{said[1:]}: dim=0 is the batch. Each answer depends on the other rows of its batch, "
                "and the loss cannot come near zero."
            ),
            remedy="Take it over the classes, dim=1 (dim=-1 for two dimensions), or give the scores to cross_entropy.",
            where=finding.name,
        )
