"""A checkpoint was given to a model and none of it arrived: its names are others by a prefix, and nobody insisted."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion


class CheckpointNotLoaded:
    """Speaks from what a load that is not strict left out, where the same weights lie in the state under other names.

    Only of a model that is used as it was drawn: what is loaded otherwise meanwhile is loaded.
    """

    word: ClassVar[str] = "checkpoint_not_loaded"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        finding = broken(case, "loaded_nothing")
        if finding is None:
            return None
        told = finding.evidence
        model, name, found = told.get("model", "model"), told.get("parameter", ""), told.get("found", "")
        more, less = (found, name) if len(found) > len(name) else (name, found)
        prefix = more.removesuffix(less)
        return Opinion(
            clues=[
                Clue(3.5, f"none of the {finding.value:.0f} parameters of the {model} was in the state it was given"),
                Clue(1.0, f"`{name}` lies there as `{found}`, with the same shape, and so do the others"),
            ],
            title=f"The {model} took nothing of its checkpoint",
            explanation=(
                f"`load_state_dict` was not strict and matched no parameter: the model has `{name}` where the state "
                f"has `{found}`. The {model} is used as it was drawn, without a word."
            ),
            remedy=(
                f"Make the names agree before loading: the prefix `{prefix}` is a wrapper's (DataParallel, DDP, "
                "torch.compile, an attribute of another module). Load with strict=True, or look at the `missing_keys` "
                "that `load_state_dict` returns."
            ),
            where=str(told.get("line") or name),
        )
