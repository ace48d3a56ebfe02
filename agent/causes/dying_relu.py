"""ReLU units pushed below zero for every input: they pass no gradient, so they never come back."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.causes.learning_rate_too_high import unusual_rate
from torchvitals.agent.layer_names import activations_of, layer_of
from torchvitals.agent.step_evidence import compounding, endless_momentum, first_value, raised_rate, raw_input
from torchvitals.detectors.detector import Finding

WILD = 1e3
"""A first gradient norm of this size means that inputs or weights are out of scale; units die of it."""
EARLY = 12
"""Steps within which unscaled inputs wreck a run, if they do."""
RECTIFIERS = ("ReLU", "ReLU6", "Threshold", "Hardswish")


class DyingRelu:
    """Speaks from units that stopped; a whole gradient of zero in a net of ReLUs is its extreme."""

    word: ClassVar[str] = "dying_relu"
    explains: ClassVar[tuple[str, ...]] = ("dead_relu", "vanishing")
    prior: ClassVar[float] = 0.5

    def weigh(self, case: Case) -> Opinion | None:
        dead = case.of_kind("dead_relu")
        finding = next(iter(dead), None) or _all_zero(case)
        if finding is None:
            return None
        layer = next((layer_of(f.name) for f in dead if f.evidence.get("units")), layer_of(finding.name))
        place = layer or "the output"
        return Opinion(
            clues=[*_units(dead), *_surroundings(case, finding)],
            title=f"Dead ReLU units in {place} from step {finding.first_step}",
            explanation=(
                f"{_how_many(finding)} of {place} put out zero for every input from step {finding.first_step} on. "
                "A ReLU that is negative everywhere passes no gradient, so these units, and whatever only they "
                "feed, cannot learn any more."
            ),
            remedy=(
                f"Go back to a checkpoint before step {finding.first_step} and lower the learning rate or clip the "
                "gradient; look at what moved the layer's bias or weights. A LeakyReLU or GELU, a normalization in "
                "front of it, or biases that start at zero make it recoverable."
            ),
            where=layer,
        )


def _all_zero(case: Case) -> Finding | None:
    """A gradient of exactly zero everywhere, in a net that is known to have ReLUs."""
    has_relu = any(name in activations_of(case.facts) for name in RECTIFIERS)
    everywhere = (f for f in case.of_kind("vanishing") if f.evidence.get("everywhere"))
    return next(everywhere, None) if has_relu else None


def _how_many(finding: Finding) -> str:
    units, silent = finding.evidence.get("units"), finding.evidence.get("silent_units")
    return (
        f"{silent} of {units} units" if units else f"{finding.value:.0%} of the units" if finding.value else "All units"
    )


def _units(dead: list[Finding]) -> list[Clue]:
    clues = []
    for position, finding in enumerate(dead[:2]):
        came = "from the first step" if finding.evidence.get("from_start") else f"after {_lowest(finding)} before"
        # the output and the gradient of one layer are one piece of evidence, seen twice
        clues.append(
            Clue(0.5 if position else 2.0, f"{_how_many(finding)} in {finding.name or 'a layer'} are silent, {came}")
        )
    return clues


def _lowest(finding: Finding) -> str:
    return f"at most {float(finding.evidence.get('lowest_share', 0.0)):.0%}"


def _surroundings(case: Case, finding: Finding) -> list[Clue]:
    activations = activations_of(case.facts)
    clues = []
    if any(name in activations for name in RECTIFIERS):
        clues.append(Clue(0.5, "the model has ReLU modules"))
    elif activations:
        clues.append(Clue(-1.5, f"the activation modules of the model are {', '.join(sorted(activations))}"))
    clues += [*_upstream(case, finding), *_seen_alive(case)]
    vanished = [f for f in case.of_kind("vanishing") if not f.evidence.get("everywhere")]
    if vanished and vanished[0].first_step <= finding.first_step:
        clues.append(Clue(-2.0, f"gradients had vanished by step {vanished[0].first_step} already"))
    return clues


def _upstream(case: Case, finding: Finding) -> list[Clue]:
    """What kills units: a step, a rate or a scale. Units that die of it are how it shows, not why it happened."""
    clues = []
    opening = case.opening
    if opening.kind not in ("dead_relu", "vanishing"):
        clues.append(Clue(-3.0, f"the {opening.kind} of step {opening.first_step} came first, and units die of it"))
    norm = first_value(case, "gradient_norm_unclipped") or first_value(case, "gradient_norm")
    if norm is not None and not norm < WILD:
        clues.append(Clue(-2.0, f"the gradient norm was {norm:.3g} before the first update"))
    raw = raw_input(case)
    if raw and opening.first_step <= EARLY:
        clues.append(Clue(-2.0, f"the inputs reach {raw:.3g} unscaled, of which the first updates grow as large"))
    if factor := compounding(case):
        clues.append(Clue(-3.0, f"the learning rate grows by a factor of {factor:.4g} in each step"))
    elif raised := raised_rate(case):
        clues.append(Clue(-2.0, raised))
    unusual = "" if finding.evidence.get("from_start") else unusual_rate(case)
    if unusual:
        clues.append(Clue(-3.0, f"{unusual}, and the first steps made at it killed them"))
    if endless_momentum(case):
        clues.append(Clue(-3.0, "the momentum never fades, so that steps grow until something gives way"))
    return clues


def _seen_alive(case: Case) -> list[Clue]:
    """Without a dead layer the claim rests on the gradient alone: ReLUs whose outputs were looked at speak for all."""
    shares = case.history.profiles("module_silent_units", case.opening.rank, case.opening.optimizer)
    if case.of_kind("dead_relu") or not shares:
        return []
    silent = shares[-1].values[np.isfinite(shares[-1].values)]
    if not len(silent) or silent.max() >= 1.0:
        return []
    return [Clue(-3.0, f"its ReLUs were looked at, and at most {silent.max():.0%} of the units of one are silent")]
