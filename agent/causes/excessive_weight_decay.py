"""The weight decay pulls harder than the gradient: the weights shrink to nothing."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import in_force, optimizer_name, settings

USUAL = 1e-3
"""Largest product of rate and decay in use: AdamW at 1e-3 and 1; usual are 1e-5 to 1e-4."""


class ExcessiveWeightDecay:
    """Speaks from the optimizer's ``weight_decay`` and rate, where all weights shrink."""

    word: ClassVar[str] = "excessive_weight_decay"
    explains: ClassVar[tuple[str, ...]] = ("vanishing", "plateau", "update_ratio")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        shrunk = next((f for f in case.of_kind("vanishing") if f.evidence.get("signal") == "weights"), None)
        decay, rate, name = (
            max(settings(case, "weight_decay"), default=0.0),
            in_force(case, "learning_rate") or 0.0,
            optimizer_name(case),
        )
        if shrunk is None or (not decay and name):
            return None
        clues = [Clue(2.0, f"{shrunk.value:.1%} of the weights' norm are left, in {shrunk.evidence['layers']} layers")]
        # what is divided by the size of the gradient does not depend on that of the decay
        pull = rate if name == "Adam" else rate * decay
        if decay:
            strong = pull > USUAL or (name == "Adam" and decay >= 0.1)
            what = f"weight_decay={decay:g} at a rate of {rate:.3g} takes {pull:.2g} of each weight in a step"
            clues.append(Clue(3.0 if strong else -1.0, what))
        return Opinion(
            clues=clues,
            title=f"weight_decay={decay:g} shrinks all weights to nothing"
            if decay
            else "All weights shrink to nothing",
            explanation=(
                f"By step {shrunk.step} the norm of the median layer is {shrunk.value:.2g} of what it was at step "
                f"{shrunk.first_step}. The decay pulls all weights to zero, and no gradient is as strong."
            ),
            remedy=_remedy(decay, name),
            where="optimizer",
            first_step=shrunk.first_step,
        )


def _remedy(decay: float, name: str) -> str:
    if not decay:
        return "Look for what shrinks the weights between the steps: a penalty in the loss, a decay applied by hand."
    usual = 0.1 if name == "AdamW" else 1e-4
    exponent = int(np.floor(np.log10(decay / usual))) if decay > usual else 0
    times = f", {10**exponent:g} times less" if exponent > 0 else ""
    return (
        f"Set weight_decay to about {usual:g} for {name}{times}. That of AdamW is not that of SGD or Adam: there the "
        "decay is added to the gradient, here it is multiplied by the rate alone."
    )
