"""The optimizer does not hold what the model trains: built on what was replaced later, frozen then, or hidden."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.layer_names import layer_of
from torchvitals.detectors.detector import Finding

_WHY = {
    "thawed": (
        "they were frozen when the optimizer was built, and set free later",
        "Add them by `optimizer.add_param_group`, or build the optimizer of all and let `requires_grad` decide.",
    ),
    "hidden": (
        "the module keeps these layers in a plain list or dictionary, where `parameters()` does not find them",
        "Keep them in `nn.ModuleList`, `nn.ModuleDict` or `nn.ParameterList`, or register them with `add_module`.",
    ),
    "late": (
        "the model was given them after the optimizer had been built",
        "Build the optimizer after the model's last change (head, adapters, pruning), or use `add_param_group`.",
    ),
}
"""Why something is left out → how that came about, and what to do."""


class StaleOptimizerParameters:
    """Speaks from the owners of what the optimizer holds, and from steps that find no gradient at all."""

    word: ClassVar[str] = "stale_optimizer_parameters"
    explains: ClassVar[tuple[str, ...]] = ("stuck_parameters",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        extra = case.history.series("optimizer_extra_parameters", None, case.opening.optimizer)
        strangers = int(np.max(extra.values, initial=0.0))
        lonely = _all_without_gradient(case)
        if case.events_of("leaf_loss"):
            return None  # no model gets gradients, whoever holds its parameters
        if case.facts.get("held_twice"):
            return _held_twice(case, int(case.facts["held_twice"]))
        if neglected := _neglected(case):
            return _left_behind(case, int(neglected.evidence["parameters"]))
        if not strangers and lonely is None:
            return None
        first = case.opening
        model = str(case.facts.get("left_out_model") or "")
        return Opinion(
            clues=[*_owners(case, strangers), *_gradients(lonely)],
            title="The optimizer updates parameters that the model does not use",
            explanation=(
                f"{strangers or 'All'} parameters of the optimizer belong to no module that takes part in training: "
                "the model was copied, moved or changed after the optimizer was built. Its steps change weights "
                f"that nobody uses, and {model or _left_out(case) or 'the model in use'} stays as it is."
            ),
            remedy=(
                "Build the optimizer after the last change of the model (deepcopy, a new head, a wrapper, loading "
                "the whole module), or add the new parameters with `optimizer.add_param_group`."
            ),
            where=_where(case, strangers=strangers, whole=bool(model)) or layer_of(first.name) or "optimizer",
        )


def _where(case: Case, *, strangers: int, whole: bool) -> str:
    """The layer that was left out; the optimizer itself where that is a whole model, or nobody knows what."""
    if whole:
        return "optimizer"
    return _left_out(case) or ("optimizer" if strangers else "")


def _held_twice(case: Case, number: int) -> Opinion:
    model = str(next(iter(case.facts.get("left_out") or []), "")).split(".", maxsplit=1)[0]
    said = f"two optimizers hold the same {number} parameters, and {model} gets gradients and is in none"
    return Opinion(
        clues=[Clue(4.0, said)],
        title=f"No optimizer holds the parameters of {model}; two hold the same",
        explanation=f"From the first step on {said}: it never changes, and the other is stepped twice.",
        remedy=f"Build one of the two optimizers on the parameters of {model}: a line was copied with its argument.",
        where=model,
    )


def _neglected(case: Case) -> Finding | None:
    found = case.of_kind("stuck_parameters")
    return next((f for f in found if f.evidence.get("relation") == "neglected_parameters"), None)


def _left_behind(case: Case, number: int) -> Opinion:
    place = _left_out(case) or "the model"
    how, remedy = _WHY.get(str(case.facts.get("left_out_because")), _WHY["hidden"])
    since = int(case.facts.get("left_out_since", case.opening.first_step))
    said = f"{number} parameters from {place} on get gradients and are in no optimizer"
    return Opinion(
        clues=[Clue(4.0, said), Clue(1.0, how)],
        title=f"No optimizer holds {place}, which is meant to learn",
        explanation=f"From step {since} on {said}, so they never change: {how}.",
        remedy=remedy,
        where=place,
        first_step=since,
    )


def _left_out(case: Case) -> str:
    """The layer that is trained and that no optimizer holds."""
    return next((layer_of(str(name)) for name in case.facts.get("left_out") or []), "")


def _all_without_gradient(case: Case) -> Finding | None:
    """The optimizer holds parameters that could learn, and none has ever had a gradient."""
    return next(
        (f for f in case.of_kind("stuck_parameters") if f.evidence.get("all") and f.evidence.get("trainable")), None
    )


def _owners(case: Case, strangers: int) -> list[Clue]:
    if not strangers:
        return []
    told = any(f.evidence.get("relation") == "stale_parameters" for f in case.of_kind("stuck_parameters"))
    return [Clue(4.0 if told else 2.0, f"{strangers} parameters of the optimizer are owned by no living model")]


def _gradients(lonely: Finding | None) -> list[Clue]:
    if lonely is None:
        return []
    return [Clue(3.0, f"none of its {lonely.evidence['trainable']} trainable parameters has ever had a gradient")]
