"""The job trains on the first batch of its loader for ever, and never sees the others."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class RepeatedBatch:
    """Speaks from iterators of a loader, a new one at each step, that all gave the same batch and no second one."""

    word: ClassVar[str] = "repeated_batch"
    explains: ClassVar[tuple[str, ...]] = ("miswired", "overfit", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "first_batch_only")
        if finding is None:
            return None
        batches, rounds = finding.evidence.get("batches"), finding.evidence.get("rounds")
        return Opinion(
            clues=[Clue(4.5, f"{rounds} iterators in a row were asked for one batch, and gave the same of {batches}")],
            title=f"Only the first of {batches} batches is trained on, at {finding.name}",
            explanation=(
                f"At {finding.name} the loop takes the first batch of a new iterator at each step. The loader does not "
                f"shuffle, so that it is always the same: the other {int(batches or 1) - 1} are never seen."
            ),
            remedy=(
                "Go through the loader with `for batch in loader`, or keep one iterator and begin anew when it ends. "
                "If one batch is to be learnt by heart, take it once before the loop."
            ),
            where=finding.name,
        )
