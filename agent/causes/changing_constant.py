"""Compiled code reads a Python value that changes from step to step: a counter, a list that grows, a new object."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.recompile_words import STATE, cost_of, line_of, name_of, share_of_shapes, storm_of


class ChangingConstant:
    """Speaks from the guards that failed: on values of Python, which compiled code takes for constants."""

    word: ClassVar[str] = "changing_constant"
    explains: ClassVar[tuple[str, ...]] = ("recompile_storm",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if (storm := storm_of(case)) is None:
            return None
        finding, told = storm
        reasons = [str(d["reason"]) for d in told if not share_of_shapes([d]) and not STATE.search(str(d["reason"]))]
        if not reasons or share_of_shapes(told) >= 0.5:
            return None
        function = name_of(told)
        return Opinion(
            clues=[
                Clue(3.5, f"{len(reasons)} of the guards that failed were on a value: {reasons[-1]}"),
                Clue(0.5, f"{finding.value:.0f} recompilations in {finding.evidence['steps']} steps"),
            ],
            title=f"{function} is compiled anew for every value of a constant, step {finding.first_step}",
            explanation=(
                f"From step {finding.first_step} to {finding.step} {function} was compiled {finding.value:.0f} times "
                f"more, because what it takes for a constant had changed: {reasons[-1]}. {cost_of(finding)}"
            ),
            remedy=(
                "Pass what changes as a tensor, or keep it out of the compiled function; for counters of a module set "
                "torch._dynamo.config.allow_unspec_int_on_nn_module = True."
            ),
            where=line_of(told),
        )
