"""Answers of shape (n, 1) meet targets of shape (n,): the loss compares each answer with every target."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class BroadcastTargets:
    """Speaks from the graph of the loss, where a difference is a table of all pairs of answers and targets."""

    word: ClassVar[str] = "broadcast_targets"
    explains: ClassVar[tuple[str, ...]] = ("miswired", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "broadcast_targets")
        if finding is None:
            return None
        answers, targets, pairs = (finding.evidence.get(name, "") for name in ("answers", "targets", "pairs"))
        fix = "pred.squeeze(-1)" if str(answers).endswith(", 1)") else "target.squeeze(-1)"
        return Opinion(
            clues=[Clue(4.0, f"in the graph of the loss answers of shape {answers} are taken from targets {targets}")],
            title=f"The loss at {finding.name} compares each answer with every target",
            explanation=(
                f"At {finding.name} answers of shape {answers} meet targets of shape {targets}. They are broadcast to "
                f"{pairs}: each answer is compared with the targets of the whole batch, and the best that can be "
                "learnt is their mean. The loss falls to the variance of the targets and stays there."
            ),
            remedy=f"Give both the same shape, as with `{fix}`; PyTorch warns of it only in mse_loss and its like.",
            where=finding.name,
        )
