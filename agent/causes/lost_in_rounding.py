"""The weights are 16 bits wide, and the steps are smaller than their last bit: most of each update is rounded away."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.nothing_moves import rounded_away


class LostInRounding:
    """Speaks from the type of the weights, and from how far they move where nothing is learnt."""

    word: ClassVar[str] = "lost_in_rounding"
    explains: ClassVar[tuple[str, ...]] = ("plateau", "update_ratio")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        lost = rounded_away(case)
        if lost is None:
            return None
        return Opinion(
            clues=[
                Clue(
                    3.5,
                    f"the weights are {lost.dtype}, which keeps steps of {lost.resolution:.2g} of a weight and more, "
                    f"and move by {lost.moved:.1e} of themselves",
                )
            ],
            title=f"Updates are rounded away: the weights are {lost.dtype}",
            explanation=(
                f"A {lost.dtype} weight changes by {lost.resolution:.2g} of itself or not at all, and in a step the "
                f"weights move by {lost.moved:.1e} of themselves: nearly all entries stay as they are, and nothing is "
                "learnt."
            ),
            remedy=(
                "Keep the weights in float32 and use torch.autocast for the arithmetic, or an optimizer with float32 "
                "master weights or stochastic rounding; a higher rate alone makes it learn, and badly."
            ),
            where="parameters",
        )
