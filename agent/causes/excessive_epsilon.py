"""The ``eps`` of an adaptive optimizer is far above the gradients, so that it does not adapt and hardly moves."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.nothing_moves import CLIPPED, standstill
from torchvitals.agent.step_evidence import optimizer_name, settings


class ExcessiveEpsilon:
    """Speaks from the share of ``eps`` in the denominator of the step, where nothing is learnt."""

    word: ClassVar[str] = "excessive_epsilon"
    explains: ClassVar[tuple[str, ...]] = ("plateau",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        still = standstill(case)
        share = float(still.evidence.get("epsilon_share", 0.0)) if still else 0.0
        if still is None or not share:
            return None
        name, epsilons = optimizer_name(case) or "the optimizer", settings(case, "eps")
        spelled = f"eps={max(epsilons):g}" if epsilons else "eps"
        clues = [Clue(4.0, f"eps makes {share:.1%} of the denominator of {name}, even where gradients are largest")]
        if (times := float(still.evidence.get("clipped", 1.0))) >= CLIPPED:
            clues.append(Clue(-2.5, f"the gradients have been clipped to 1/{times:.3g} before"))
        return Opinion(
            clues=clues,
            title=f"{spelled} of {name} is far above the gradients: nothing is learnt",
            explanation=(
                f"{name} divides the gradient by its usual size plus eps, and {spelled} makes {share:.1%} of that sum. "
                "It works as plain descent at a rate of lr / eps: no step has moved any layer by more than "
                f"{still.value:.1e} of its weights, and after {still.step - still.first_step} steps the loss is where "
                "it began."
            ),
            remedy="Use the usual eps (1e-8; 1e-6 to 1e-7 in half precision). If eps is meant, raise the rate with it.",
            where="optimizer",
            first_step=still.first_step,
        )
