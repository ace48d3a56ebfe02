"""Gradients are clipped to next to nothing, so that no step moves a weight."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.nothing_moves import CLIPPED, standstill
from torchvitals.agent.step_evidence import scalars


class ExcessiveClipping:
    """Speaks from the gradient's norm before and after clipping, where nothing is learnt."""

    word: ClassVar[str] = "excessive_clipping"
    explains: ClassVar[tuple[str, ...]] = ("plateau",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        still = standstill(case)
        times = float(still.evidence.get("clipped", 1.0)) if still else 1.0
        if still is None or times < CLIPPED:
            return None
        before = float(np.median(scalars(case, "gradient_norm_unclipped").values))
        limit = case.facts.get("clips")
        left = f"{float(limit):.3g}" if isinstance(limit, int | float) else f"{before / times:.3g}"
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
            title=f"Gradients are clipped to {left}, 1/{times:.1g} of their size"[:79],
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
