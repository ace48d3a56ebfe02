"""Parameters that are to stay fixed are moved by the optimizer: by momentum, by weight decay, by gradients of old."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.layer_names import layer_of


class FrozenButUpdated:
    """Speaks from a frozen parameter that was compared before and after a step."""

    word: ClassVar[str] = "frozen_but_updated"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "frozen_moves")
        if finding is None:
            return None
        layer = layer_of(finding.name)
        return Opinion(
            clues=[
                Clue(4.0, f"step {finding.step} changed {finding.name}, which requires no gradient"),
                Clue(0.5, f"{finding.value:.0f} frozen parameters still have a gradient, and the optimizer holds them"),
            ],
            title=f"Frozen parameters are moved by the optimizer: {layer}"[:79],
            explanation=(
                f"{finding.value:.0f} parameters, {layer} first, do not require a gradient, but the optimizer holds "
                "them with the gradient they had when they were frozen: momentum and weight decay go on moving them."
            ),
            remedy=(
                "Freeze before the optimizer is built and give it only what requires a gradient, or set their `.grad` "
                "to None (`zero_grad(set_to_none=True)`, the default)."
            ),
            where=layer,
        )
