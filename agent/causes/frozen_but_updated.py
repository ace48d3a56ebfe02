"""Parameters that are to stay fixed are moved by the optimizer: by momentum, by weight decay, by gradients of old."""

from typing import ClassVar

from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.layer_names import layer_of
from torchvitals.detectors.detector import Finding


class FrozenButUpdated:
    """Speaks from a frozen parameter that was compared before and after a step, and from layers frozen too late."""

    word: ClassVar[str] = "frozen_but_updated"
    explains: ClassVar[tuple[str, ...]] = ("miswired",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if (late := broken(case, "frozen_late")) is not None:
            return _of_late(late)
        finding = broken(case, "frozen_moves")
        if finding is None:
            return None
        layer = layer_of(finding.name)
        return Opinion(
            clues=[
                Clue(4.0, f"step {finding.step} changed {finding.name}, which requires no gradient"),
                Clue(0.5, f"{finding.value:.0f} frozen parameters still have a gradient, and the optimizer holds them"),
            ],
            title=f"Frozen parameters are moved by the optimizer: {layer}",
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


def _of_late(finding: Finding) -> Opinion:
    """The model freezes in its own ``train()``, and that was not called at first."""
    layer, model = layer_of(finding.name), finding.evidence.get("model", "model")
    return Opinion(
        clues=[
            Clue(3.5, f"`{model}.train()` froze {finding.value:.0f} parameters that had been trained until then"),
            Clue(0.5, f"nothing that the {model} is set by has changed since the training began"),
        ],
        title=f"Layers that the {model} declares frozen were trained up to step {finding.step}",
        explanation=(
            f"{model} freezes {layer} and more in its `train()`, and nobody had called that before the first step: "
            f"{finding.value:.0f} parameters that are to stay as they were loaded were trained, up to a step shortly "
            f"before {finding.step}, when `train()` was called for the first time."
        ),
        remedy="Freeze in the constructor as well as in `train()`, or call `model.train()` before the first step.",
        where=layer,
    )
