"""A checkpoint gave zeros where weights should be: damaged, cut off, or put together wrongly when it was saved."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class CorruptedCheckpoint:
    """Speaks from weights that are all zero once they were loaded, and were random numbers in the fresh model."""

    word: ClassVar[str] = "corrupted_checkpoint"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "loaded_zeros")
        if finding is None:
            return None
        count, model = finding.value, finding.evidence.get("model", "model")
        return Opinion(
            clues=[
                Clue(3.5, f"every value of `{finding.name}` was zero when the {model} had loaded it, and none before"),
                Clue(0.5, "the other weights of that checkpoint are not zero"),
            ],
            title=f"The checkpoint holds nothing but zeros for `{finding.name}`",
            explanation=(
                f"The {model} took a state in which {count:.0f} of the weights, `{finding.name}` first, are zero "
                "everywhere. A fresh model draws them at random and training does not bring them to exactly zero: the "
                "file was damaged, or the state was put together wrongly when it was saved."
            ),
            remedy=(
                "Look at that tensor in the file and in an earlier checkpoint. When sharded or tied weights are saved, "
                "gather them first, and compare sums of what was saved with sums of what is loaded."
            ),
            where=finding.name,
        )
