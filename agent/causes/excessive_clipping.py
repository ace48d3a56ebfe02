"""Gradients are clipped to next to nothing, so that no step moves a weight."""

from typing import Any, ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.nothing_moves import CLIPPED, standstill, throttled, unclipped
from torchvitals.agent.step_evidence import scalars
from torchvitals.detectors.detector import Finding

EXACT = 0.02
"""By which the usual norm may miss the limit: below it nothing is clipped."""


class ExcessiveClipping:
    """Speaks from the gradient's norm before and after clipping, where nothing is learnt."""

    word: ClassVar[str] = "excessive_clipping"
    explains: ClassVar[tuple[str, ...]] = ("plateau",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        still = standstill(case)
        unlearnt = still or next(iter(case.of_kind("plateau")), None)
        if unlearnt is not None and (scale := _still_scaled(case)):
            return _clipped_too_soon(case, unlearnt, scale)
        times = float(still.evidence.get("clipped", 1.0)) if still else 1.0
        if still is None:
            return _hardly_learns(case)
        if times < CLIPPED:
            return None
        before = float(np.median(unclipped(case).values))
        left = _left(case.facts, before / times)
        clues = [
            Clue(2.0 + min(2.0, 0.5 * float(np.log10(times))), f"clipping leaves 1/{times:.3g} of the gradient"),
            Clue(1.0, f"no step moved any layer by more than {still.value:.1e} of its weights"),
        ]
        if still.evidence.get("epsilon_share"):
            clues.append(
                Clue(0.5, "what is left is far below eps as well, so that the optimizer cannot make up for it")
            )
        return Opinion(
            clues=clues,
            title=f"Gradients are clipped to {left}, 1/{times:.1g} of their size",
            explanation=(
                f"The gradient's norm is {before:.3g} and is clipped to {left} in every step. No step has moved any "
                f"layer by more than {still.value:.1e} of its weights, and the loss is where it began after "
                f"{still.step - still.first_step} steps."
            ),
            remedy=(
                f"Clip where spikes are and not where the gradient usually is: at about {before * 2:.1g} here. Look "
                "whether limit and order of the norm have changed places, or the limit is a learning rate or an eps."
            ),
            where="optimizer",
            first_step=still.first_step,
        )


def _hardly_learns(case: Case) -> Opinion | None:
    """The loss stays at chance, and clipping leaves a small part of steps that nothing makes up for."""
    plateau, times = next(iter(case.of_kind("plateau")), None), throttled(case)
    if plateau is None or times == 1:
        return None
    before = float(np.median(unclipped(case).values))
    left = _left(case.facts, before / times)
    return Opinion(
        clues=[
            Clue(2.5, f"clipping leaves 1/{times:.3g} of the gradient in the usual step"),
            Clue(1.0, "the optimizer does not adapt to what is left"),
        ],
        title=f"Gradients are clipped to {left}, 1/{times:.1g} of their size",
        explanation=(
            f"The gradient's norm is {before:.3g} and clipping leaves 1/{times:.3g} of it. The loss is "
            f"{plateau.value:.4g} after {plateau.step - plateau.first_step} steps, that of guessing."
        ),
        remedy=f"Clip at about {before * 2:.1g}, where spikes are, or raise the rate by what clipping takes away.",
        where="optimizer",
        first_step=plateau.first_step,
    )


def _still_scaled(case: Case) -> float:
    """The loss scale, where what is applied is the limit divided by it in the usual step: else 0."""
    limit, scales, norms = case.facts.get("clips"), scalars(case, "loss_scale"), scalars(case, "gradient_norm")
    if not isinstance(limit, int | float) or not limit > 0 or not len(norms.values) or not len(scales.values):
        return 0.0
    scale = float(np.median(scales.values))
    return scale if scale > 1 and abs(float(np.median(norms.values)) * scale / limit - 1) <= EXACT else 0.0


def _clipped_too_soon(case: Case, found: Finding, scale: float) -> Opinion:
    """Gradients are clipped before the loss scale is taken off them."""
    limit = float(case.facts["clips"])
    return Opinion(
        clues=[
            Clue(5.0, f"in the usual step what is applied is {limit:.3g} / {scale:.3g}: the limit over the loss scale")
        ],
        title=f"Gradients are clipped while they are scaled by {scale:.3g}",
        explanation=(
            f"Gradients are clipped to {limit:.3g} while they still carry the loss scale of {scale:.3g}, so that "
            f"{limit / scale:.2g} is left when it is taken off: nothing has been learnt in "
            f"{found.step - found.first_step} steps."
        ),
        remedy="Call `scaler.unscale_(optimizer)` before clipping.",
        where="optimizer",
        first_step=found.first_step,
    )


def _left(facts: dict[str, Any], norm: float) -> str:
    """What clipping leaves: the limit where the job named one, else the ``norm`` that was seen."""
    for name, of in (("clips", ""), ("clips_values", " each")):
        limit = facts.get(name)
        if isinstance(limit, int | float):
            return f"{float(limit):.3g}{of}"
    return f"{norm:.3g}"
