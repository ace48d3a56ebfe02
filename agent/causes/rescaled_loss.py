"""The loss is multiplied by a factor from one step on: summed where it was averaged, or given another weight."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.loss_leap import factors, in_words, thrown
from torchvitals.agent.step_evidence import at_onset, in_force, in_the_batch, leap, raised_rate, scalars


class RescaledLoss:
    """Speaks from a loss and a gradient that grew by the same factor within one step, on an input as large as ever."""

    word: ClassVar[str] = "rescaled_loss"
    explains: ClassVar[tuple[str, ...]] = ("explosion", "divergence", "loss_spike", "nonfinite")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        grown, onset = factors(case), case.opening.first_step
        larger = leap(case, "input_absmax", back=2) or leap(case, "batch_items", back=2)
        moved = raised_rate(case) or scalars(case, "weights_overwritten").at(onset) or thrown(case)
        if grown is None or not grown.multiplied or larger or moved or in_the_batch(case):
            return None
        if at_onset(case, "input_nonfinite") or at_onset(case, "eval_mode_passes"):
            return None
        loss, gradient = in_words(grown.loss), in_words(grown.gradient)
        told = f"the loss became {loss} times what was usual and its gradient {gradient} times, in the same step"
        rate, rows = in_force(case, "learning_rate"), in_force(case, "batch_items")
        here = f", of {rows:.0f} rows" if rows and rows > 1 else ""
        return Opinion(
            clues=[
                Clue(2.5, told),
                Clue(
                    0.5,
                    "input and rate were as before, and a target that is far off would not move both alike",
                ),
            ],
            title=f"The loss is about {loss} times larger from step {onset} on, as its gradient is",
            explanation=(
                f"At step {onset} {told}: as it is when the loss itself is multiplied, by another reduction (a sum "
                f"over the batch where there was a mean{here}), another weight, or a lost division. Steps at the "
                f"learning rate{f' of {rate:.3g}' if rate else ''} became as much larger. What the target was is not "
                "recorded."
            ),
            remedy=(
                f"Compare how the loss is computed before and from step {onset} on (`reduction=`, weights of its "
                "terms, a division by the number of samples or of accumulated batches); or divide the learning rate by "
                f"{loss} there. Resume from a checkpoint before that step."
            ),
            where="loss",
            first_step=onset,
        )
