"""The weight decay pulls harder than the gradient: the weights shrink to nothing."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import in_force, optimizer_name, settings

USUAL = 1e-3
"""Largest product of rate and decay in use: AdamW at 1e-3 and 1; usual are 1e-5 to 1e-4."""

SHRUNK = 0.5
"""Share of the norm, of the median layer, below which a training that learns nothing has been held down."""


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
        if shrunk is None:
            return _at_chance(case, decay, rate, name)
        if not decay and name:
            return None
        clues = [Clue(2.0, f"{shrunk.value:.1%} of the weights' norm are left, in {shrunk.evidence['layers']} layers")]
        if decay:
            clues.append(Clue(3.0 if _strong(decay, rate, name) else -1.0, _pull_text(decay, rate, name)))
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


def _pull(decay: float, rate: float, name: str) -> float:
    """Share of a weight that a step takes; what Adam divides by the gradient's size depends on the rate alone."""
    return rate if name == "Adam" else rate * decay


def _strong(decay: float, rate: float, name: str) -> bool:
    return _pull(decay, rate, name) > USUAL or (name == "Adam" and decay >= 0.1)


def _pull_text(decay: float, rate: float, name: str) -> str:
    taken = _pull(decay, rate, name)
    return f"weight_decay={decay:g} at a rate of {rate:.3g} takes {taken:.2g} of each weight in a step"


def _at_chance(case: Case, decay: float, rate: float, name: str) -> Opinion | None:
    """Nothing is learnt, under a decay that nobody uses: weights need not come to nothing for that."""
    strong = rate * decay > USUAL or (name == "Adam" and decay >= 0.1)  # Adam's rate alone says nothing yet
    if not case.of_kind("plateau") or not strong:
        return None
    opening = case.opening
    norms = case.history.profiles("parameter_weight_norm", opening.rank, opening.optimizer)
    if len(norms) < 2 or norms[0].values.shape != norms[-1].values.shape:
        return None
    first, last = norms[0].values, norms[-1].values
    known = np.isfinite(first) & np.isfinite(last) & (first > 0)
    left = float(np.median(last[known] / first[known])) if known.any() else 1.0
    if left > SHRUNK:
        return None
    return Opinion(
        clues=[
            Clue(1.5, f"{left:.0%} of the weights' norm are left at step {norms[-1].step}, in the median layer"),
            Clue(3.0, _pull_text(decay, rate, name)),
        ],
        title=f"weight_decay={decay:g} keeps the weights too small to learn",
        explanation=(
            f"The loss stays at chance while the norm of the median layer fell to {left:.2g} of what it was. "
            f"{_pull_text(decay, rate, name)[:1].upper()}{_pull_text(decay, rate, name)[1:]}, and the gradient does "
            "not bring it back."
        ),
        remedy=_remedy(decay, name),
        where="optimizer",
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
