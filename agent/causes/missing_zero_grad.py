"""The training loop never clears its gradients: each step applies the sum of all so far."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import never_cleared, scalars


class MissingZeroGrad:
    """Speaks from the relation alone: no reset between two applied steps."""

    word: ClassVar[str] = "missing_zero_grad"
    explains: ClassVar[tuple[str, ...]] = ("divergence", "explosion", "loss_spike", "nonfinite", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        steps = never_cleared(case)
        if steps < 4:  # fewer may be one long accumulation
            return None
        told = [f for f in case.of_kind("divergence") if f.evidence.get("signal") == "gradients_reset"]
        clues = [Clue(4.0, f"the gradients were not cleared in {steps} steps in a row")]
        if told:
            clues.append(Clue(1.0, "and that from the beginning of the trouble on"))
        first = scalars(case, "gradient_norm").values[:1]
        last = scalars(case, "gradient_norm").before(case.opening.step, 8)
        if len(first) and len(last) and last.max() > 3 * first[0]:
            clues.append(Clue(0.5, f"the gradient norm grew from {first[0]:.3g} to {last.max():.3g}"))
        return Opinion(
            clues=clues,
            title=_title(case, steps),
            explanation=(
                f"In {steps} steps in a row backward() added to gradients that still held those of the steps before, "
                "so each update follows the sum of all past gradients instead of the present one."
            ),
            remedy="Call optimizer.zero_grad() once per step, before backward() or after step().",
        )


def _title(case: Case, steps: int) -> str:
    """Never, or not any more where they had been before."""
    resets, opening = scalars(case, "gradients_reset"), case.opening
    known = resets.steps[resets.steps <= max(opening.step, opening.first_step + 8)]
    if len(known) <= steps or not (resets.values[: len(known) - steps] > 0).any():
        return "Gradients are never cleared: optimizer.zero_grad() is missing"
    return f"From step {int(known[-steps])} on gradients are not cleared: optimizer.zero_grad() is missing"
