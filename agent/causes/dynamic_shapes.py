"""Inputs come in ever new shapes, and torch.compile makes a variant of the model for each."""

import re
from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.recompile_words import cost_of, line_of, name_of, share_of_shapes, storm_of

MISMATCH = re.compile(r"tensor '(?P<name>.+)' size mismatch at index (?P<index>\d+)")


class DynamicShapes:
    """Speaks from the guards that failed: on sizes of tensors."""

    word: ClassVar[str] = "dynamic_shapes"
    explains: ClassVar[tuple[str, ...]] = ("recompile_storm",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if (storm := storm_of(case)) is None:
            return None
        finding, told = storm
        share = share_of_shapes(told)
        if share < 0.5:  # most of them are something else
            return None
        function, example = name_of(told), next(d["reason"] for d in told if share_of_shapes([d]))
        found = MISMATCH.search(example)
        which = f"dimension {found['index']} of `{found['name']}`" if found else "an input's shape"
        return Opinion(
            clues=[
                Clue(3.5, f"{share:.0%} of the guards that failed were on shapes: {example}"),
                Clue(0.5, f"{finding.value:.0f} recompilations in {finding.evidence['steps']} steps"),
            ],
            title=f"{function} is compiled anew for every new shape, from step {finding.first_step}",
            explanation=(
                f"From step {finding.first_step} to {finding.step} {function} was compiled {finding.value:.0f} times "
                f"more, because {which} was new. {cost_of(finding)}"
            ),
            remedy=(
                "Let the size be a variable: torch.compile(..., dynamic=True), or torch._dynamo.mark_dynamic on that "
                "dimension; or pad to a few fixed sizes, and drop the last, smaller batch (drop_last=True)."
            ),
            where=line_of(told),
        )
