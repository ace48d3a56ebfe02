"""The model ends in a softmax or sigmoid, and the loss applies it once more."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class DoubleSoftmax:
    """Speaks from the graph of the loss, where one squashing stands directly under another."""

    word: ClassVar[str] = "double_softmax"
    explains: ClassVar[tuple[str, ...]] = ("miswired", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "squashed_twice")
        if finding is None:
            return None
        inner = finding.evidence.get("inner", "softmax")
        loss = "cross-entropy" if finding.evidence.get("outer") == "softmax" else "binary cross-entropy with logits"
        return Opinion(
            clues=[Clue(4.0, f"in the graph of the loss a {inner} feeds a {loss}, which applies its own")],
            title=f"The loss at {finding.name} gets probabilities instead of scores",
            explanation=(
                f"The {loss} at {finding.name} squashes its input itself, and gets one that a {inner} has squashed "
                "already. Such a loss cannot come near zero and its gradients are small: it trains slowly and badly."
            ),
            remedy=(
                f"Take the {inner} out of the model (apply it where probabilities are needed), or use the loss that "
                "expects probabilities: nll_loss of log_softmax, binary_cross_entropy."
            ),
            where=finding.name,
        )
