"""One pass of an initialisation draws the same weights several times, and each time differently."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class RepeatedInitialization:
    """Speaks from weights that `Module.apply` drew on behalf of several modules, with scales that do not agree."""

    word: ClassVar[str] = "repeated_initialization"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "initialized_by_ancestors")
        if finding is None:
            return None
        told = finding.evidence
        name, draws, widest, last = (told.get(key, 0) for key in ("parameter", "draws", "widest", "last"))
        function = f"`{told['function']}`" if told.get("function") else "the function given to `apply`"
        return Opinion(
            clues=[
                Clue(3.5, f"one pass drew `{name}` {draws} times, for as many modules that contain one another"),
                Clue(0.5, f"the draws differ: the standard deviation was {widest:.3g} at most and {last:.3g} at last"),
            ],
            title=f"{finding.value:.0f} weights are drawn again and again as the model is built",
            explanation=(
                f"{function} draws more than what belongs to the module that it is given: `{name}` and "
                f"{finding.value - 1:.0f} other weights were drawn up to {draws} times in one pass. The draw that "
                "stays is the last one in the order of the modules, and all before it are thrown away."
            ),
            remedy=(
                "Let the function draw only the parameters of the module itself (`named_parameters(recurse=False)`), "
                "or draw the special ones in a loop of their own, once, when `apply` is over."
            ),
        )
