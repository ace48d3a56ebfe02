"""The router of a mixture sends all tokens to some of its experts, and the others never learn."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class RouterCollapse:
    """Speaks from experts that the optimizer has never had a gradient for, while it updates those beside them."""

    word: ClassVar[str] = "router_collapse"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "unused_experts")
        if finding is None:
            return None
        unused, experts = int(finding.evidence.get("parameters", 0)), int(finding.evidence.get("experts", 0))
        path, first = finding.evidence.get("path") or "the mixture", finding.name
        return Opinion(
            clues=[Clue(4.0, f"{unused} of {experts} experts have not had a gradient in {finding.step} steps")],
            title=f"{unused} of {experts} experts of {path} get no tokens",
            explanation=(
                f"In {finding.step} steps the optimizer has not once had a gradient for {unused} of the {experts} "
                f"experts of {path} ({first} is the first), while the others and the router are trained: all tokens go "
                "to the same few. What is favoured learns, and is favoured more."
            ),
            remedy=(
                "Add a load-balancing loss (or raise its weight), noise to the router's scores, or a capacity limit; "
                "start the router with small weights and without a bias, and route to two experts at least."
            ),
            where=first,
        )
