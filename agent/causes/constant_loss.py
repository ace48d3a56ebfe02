"""The loss does not depend on what the model answers: masked out, multiplied by zero, rounded or binarised."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import scalars

STILL = 1e-5
"""Relative spread under which a loss is one number; those of batches differ by percents."""


class ConstantLoss:
    """Speaks from gradients of exactly zero that reach even the last layer, and from a loss that never changes."""

    word: ClassVar[str] = "constant_loss"
    explains: ClassVar[tuple[str, ...]] = ("vanishing", "stuck_parameters", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        zero = next((f for f in case.of_kind("vanishing") if f.evidence.get("everywhere")), None)
        if zero is None:
            return None
        clues = [*_of_last_layer(case, zero.first_step), *_of_loss(case, zero.first_step)]
        if not any(clue.weight > 0 for clue in clues):
            return None
        loss = zero.evidence.get("loss")
        return Opinion(
            clues=clues,
            title=f"The loss does not depend on the model from step {zero.first_step} on",
            explanation=(
                f"From step {zero.first_step} on every gradient is exactly zero, that of the last layer too, while the "
                f"loss is {loss:.3g}: whatever the model answers, the loss is the same."
            ),
            remedy=(
                "Look at what the answers go through on their way to the loss: a mask or weights that are all zero, a "
                "rounding or argmax, a clamp that is always met, a loss of other tensors."
            ),
            where="",
            first_step=zero.first_step,
        )


def _of_last_layer(case: Case, onset: int) -> list[Clue]:
    """Dead units in between leave the last layer its gradient."""
    profiles = case.history.profiles("parameter_gradient_norm", case.opening.rank, case.opening.optimizer)
    seen = [profile for profile in profiles if profile.step >= onset]
    if not seen:
        return []
    last = [values[np.isfinite(values) & (values >= 0)] for values in (profile.values for profile in seen)]
    zero = sum(bool(len(values)) and values[-1] == 0 for values in last)
    if zero == len(last):
        return [Clue(2.5, f"in {zero} samples even the last parameter had a gradient of exactly zero")]
    return [Clue(-3.0, "the last parameter still has a gradient")]


def _of_loss(case: Case, onset: int) -> list[Clue]:
    series = scalars(case, "loss")
    since = series.values[(series.steps >= onset) & np.isfinite(series.values)]
    if len(since) < 5:
        return []
    spread = float(np.ptp(since)) / max(abs(float(np.median(since))), 1e-12)
    if spread <= STILL:
        return [Clue(2.0, f"the loss is {since[-1]:.6g} on every batch")]
    return [Clue(-1.0, f"the loss varies from batch to batch, by {spread:.1%}")]
