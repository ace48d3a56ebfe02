"""The gradients are cleared between ``backward()`` and ``step()``: the optimizer never sees them."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion

MOST = 0.9
"""Share of the steps since the onset; a loss that was dropped once in a while is no habit."""


class MisplacedZeroGrad:
    """Speaks from gradients that had arrived when backward ended and were gone when the optimizer stepped."""

    word: ClassVar[str] = "misplaced_zero_grad"
    explains: ClassVar[tuple[str, ...]] = ("stuck_parameters", "vanishing", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        opening = case.opening
        lost = case.history.series("gradients_lost", None, opening.optimizer)
        steps = case.history.series("sampling_interval", None, opening.optimizer).steps  # those looked at closely
        first = max(1, opening.first_step)  # before the first step nobody knew of the optimizer
        since = int(np.count_nonzero(steps >= first))
        count = int(np.count_nonzero(lost.steps >= first))
        if not count or count < MOST * since:
            return None
        seen = f"{count} of {since} steps that were looked at"
        return Opinion(
            clues=[Clue(5.0, f"in {seen} gradients had arrived and were gone before the step")],
            title="Gradients are cleared between backward() and step()",
            explanation=(
                f"In {seen} backward() left gradients and the optimizer found none: zero_grad() is called in between, "
                "so no step changes anything."
            ),
            remedy="Move optimizer.zero_grad() in front of backward(), or behind step().",
            where="optimizer",
        )
