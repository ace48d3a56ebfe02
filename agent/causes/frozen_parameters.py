"""Parameters that should learn are cut off from the loss, frozen, or too coarse to be moved."""

from typing import Any, ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.causes.learning_rate_zero import NEGLIGIBLE
from torchvitals.agent.layer_names import layer_of
from torchvitals.agent.step_evidence import scalars
from torchvitals.detectors.detector import Finding


class FrozenParameters:
    """Speaks from weights that stay bit-equal and from trainable parameters that never get a gradient."""

    word: ClassVar[str] = "frozen_parameters"
    explains: ClassVar[tuple[str, ...]] = ("stuck_parameters",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        relations = {str(f.evidence.get("relation")): f for f in reversed(case.of_kind("stuck_parameters"))}
        finding = relations.get("without_gradient") or relations.get("unchanged")
        if finding is None:
            return None
        frozen = sum(int(model.get("frozen") or 0) for model in case.facts.get("models") or [])
        cut = finding.evidence.get("relation") == "without_gradient"
        if cut and (leaf := case.events_of("leaf_loss")):
            return _of_a_number(finding, str(leaf[0][1].details.get("line", "")))
        return Opinion(
            clues=[*_clues(finding, frozen), *_against(case, relations)],
            title=_title(finding),
            explanation=_explanation(finding),
            remedy=_remedy(cut, _dtype(case)),
            where=layer_of(finding.name),
        )


def _of_a_number(finding: Finding, line: str) -> Opinion:
    """The loss has no history at all."""
    return Opinion(
        clues=[Clue(5.0, f"`backward` is called{f' at {line}' if line else ''} on a tensor made of a number")],
        title=f"The loss{f' at {line}' if line else ''} does not lead back to the model",
        explanation=(
            f"The tensor on which `backward` is called{f' at {line}' if line else ''} was made of a number, by "
            f"`torch.tensor(loss.item(), requires_grad=True)` or the like, and not by the model: none of "
            f"{finding.evidence.get('parameters')} parameters has ever had a gradient."
        ),
        remedy="Call `backward` on the loss that was computed; `requires_grad_()` does not bring its history back.",
        where=line or layer_of(finding.name),
        first_step=0,
    )


def _title(finding: Finding) -> str:
    without = finding.evidence.get("relation") == "without_gradient"
    if without and not finding.evidence.get("trainable"):
        return f"The optimizer holds frozen parameters only, those of {layer_of(finding.name)} on"
    what = "get no gradient" if without else "do not change"
    return f"{finding.value:.0f} parameters from {layer_of(finding.name)} on {what}"


def _clues(finding: Finding, frozen: int) -> list[Clue]:
    parameters = int(finding.evidence.get("parameters", 0))
    if finding.evidence.get("relation") == "unchanged":
        return [Clue(2.0, f"{parameters} parameters stay bit-equal although they have a gradient")]
    trainable = int(finding.evidence.get("trainable", 0))
    if not trainable:
        return [Clue(3.0, "the optimizer holds frozen parameters only")]
    clues = [Clue(2.0, f"{parameters} of {trainable} trainable parameters have never had a gradient")]
    if finding.evidence.get("called"):
        clues.append(Clue(1.5, "their modules are called at each step, and nothing leads back to them"))
    if frozen:
        clues.append(Clue(0.5, f"{frozen} parameters of the model are frozen"))
    return clues


def _against(case: Case, relations: dict[str, Finding]) -> list[Clue]:
    clues = []
    rates = scalars(case, "learning_rate")
    since = rates.values[rates.steps >= case.opening.first_step]
    if "learning_rate_zero" in relations:
        clues.append(Clue(-4.0, "the learning rate is zero"))
    elif len(since) and np.median(since) <= NEGLIGIBLE:
        clues.append(Clue(-3.0, f"the learning rate is {np.median(since):.1e}, too small for any weight to move"))
    if "stale_parameters" in relations:
        clues.append(Clue(-3.0, "the optimizer holds parameters that no model uses"))
    small = [f for f in case.of_kind("update_ratio") if f.evidence.get("side") == "low"]
    if small:
        clues.append(Clue(-1.0, f"where weights move at all, they move by {small[0].value:.1e} of themselves"))
    return clues


def _explanation(finding: Finding) -> str:
    place = layer_of(finding.name)
    if finding.evidence.get("relation") == "unchanged":
        return (
            f"From step {finding.first_step} on {finding.value:.0f} parameters ({place} first) are bit-equal before "
            "and after each step although their gradients are not zero. Nothing is learned there."
        )
    if not finding.evidence.get("trainable"):
        return "No parameter that the optimizer holds requires a gradient, so its steps change nothing."
    return (
        f"{finding.value:.0f} of {finding.evidence.get('trainable')} parameters that the optimizer holds, from {place} "
        "on, have had no gradient on any sampled step. What lies before a `detach()` or `no_grad()` does not learn."
    )


def _dtype(case: Case) -> Any:
    return next((model.get("dtype") for model in case.facts.get("models") or []), None)


def _remedy(cut: bool, dtype: Any) -> str:
    if cut:
        return (
            "Look for `detach()`, `.data`, `torch.no_grad()` or a conversion to NumPy between these layers and the "
            "loss, and for `requires_grad=False`. If they are to stay fixed, leave them out of the optimizer."
        )
    if dtype in ("bfloat16", "float16"):
        return (
            f"{dtype} weights round small updates away: keep float32 weights and use autocast, or an optimizer with "
            "float32 master weights."
        )
    return "Look at the learning rate of this parameter group, and for code that writes the old weights back."
