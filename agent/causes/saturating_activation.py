"""Tanh or sigmoid units driven into their flat ends, or so many of them in a row that no gradient survives."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.layer_names import activations_of, layer_of, norms_of
from torchvitals.agent.step_evidence import endless_momentum, raised_rate

SQUASHING = ("Sigmoid", "Tanh", "Softsign", "Hardtanh", "Hardsigmoid", "LogSigmoid")
DEEP = 5
"""Sigmoid layers in a row that are enough: each passes a quarter of the gradient at best."""


class SaturatingActivation:
    """Speaks from measured saturation, or from vanished gradients in a deep net of squashing units."""

    word: ClassVar[str] = "saturating_activation"
    explains: ClassVar[tuple[str, ...]] = ("saturation", "vanishing", "dead_relu")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        saturated = case.of_kind("saturation")
        squashing = {n: c for n, c in activations_of(case.facts).items() if n in SQUASHING}
        if not saturated and not squashing:
            return None
        finding = saturated[0] if saturated else case.opening
        names = " and ".join(sorted(squashing)) or "activation"
        return Opinion(
            clues=[*_measured(case), *_depth(case, squashing), *_upstream(case)],
            title=f"Saturated {names} units in {layer_of(finding.name) or 'the model'}",
            explanation=_explanation(case, squashing),
            remedy=(
                "Normalise the inputs, put a LayerNorm or BatchNorm in front of the activation, or use Xavier "
                "initialization with its gain; in a deep net replace the activation by ReLU or GELU, or add "
                "residual connections. If it began during training, lower the learning rate."
            ),
            where=layer_of(finding.name),
        )


def _measured(case: Case) -> list[Clue]:
    clues = []
    for finding in case.of_kind("saturation")[:2]:
        before = float(finding.evidence.get("reference", 0.0))
        clues.append(
            Clue(
                3.0,
                f"{finding.value:.0%} of the outputs of {finding.name} are in the flat region, {before:.0%} at first",
            )
        )
    return clues


def _depth(case: Case, squashing: dict[str, int]) -> list[Clue]:
    count = sum(squashing.values())
    clues = []
    vanished = [f for f in case.of_kind("vanishing") if not f.evidence.get("everywhere")]
    if vanished and count >= DEEP:
        clues.append(Clue(3.0, f"{count} squashing activations in a row, and gradients that vanish towards the input"))
    elif vanished and count:
        clues.append(Clue(1.0, f"the model has {count} squashing activations"))
    rectifiers = activations_of(case.facts).get("ReLU", 0)
    if rectifiers > count:
        clues.append(Clue(-1.5, f"most activation modules are ReLUs ({rectifiers} of {rectifiers + count})"))
    norms = sum(norms_of(case.facts).values())
    if norms and not case.of_kind("saturation"):
        clues.append(Clue(-1.0, f"{norms} normalization modules keep activations in range"))
    return clues


def _upstream(case: Case) -> list[Clue]:
    """What drives units into their ends: a step or a rate. Units that saturate of it are how it shows."""
    opening, clues = case.opening, []
    if opening.kind not in ("saturation", "vanishing", "dead_relu"):
        clues.append(
            Clue(-3.0, f"the {opening.kind} of step {opening.first_step} came first, and units saturate of it")
        )
    if raised := raised_rate(case):
        clues.append(Clue(-2.0, raised))
    if endless_momentum(case):
        clues.append(Clue(-3.0, "the momentum never fades, so that steps grow until something gives way"))
    return clues


def _explanation(case: Case, squashing: dict[str, int]) -> str:
    saturated = case.of_kind("saturation")
    if saturated:
        finding = saturated[0]
        return (
            f"From step {finding.first_step} on {finding.value:.0%} of the outputs of {finding.name} lie where the "
            "activation's slope is under 5 % of its maximum. Little gradient passes such units, so the layers "
            "before them learn slowly or not at all."
        )
    finding = case.opening
    return (
        f"The gradient of {finding.name or 'the first layers'} is {finding.value:.1e} of the largest layer's. With "
        f"{sum(squashing.values())} squashing activations each layer passes on a fraction of what it gets, and "
        "nothing is left at the input."
    )
