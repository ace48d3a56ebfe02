"""Steps so large that they climb instead of descending."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.broken_relation import broken
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import (
    ADAPTIVE,
    Leap,
    compounding,
    endless_momentum,
    first_move,
    first_value,
    in_force,
    in_the_batch,
    largest_move,
    leap,
    leap_elsewhere,
    never_cleared,
    optimizer_name,
    raw_input,
    scalars,
    settings,
)

HIGH = {"adaptive": 1e-2, "plain": 0.5}
"""Rates above which most nets do not train; adaptive steps are as large as the rate, whatever the gradient."""
RISEN = 10.0
"""Warm-ups rise further, but end at a usual rate."""
STILL = 0.02
"""Update of a layer relative to its weights under which no step is too large: in blow-ups it is 0.1 and more."""
THROWN = 0.5
"""Of the weights of a layer, in the first update: what was drawn is gone after it, and usual are 0.001 to 0.01."""
GRADUAL, LASTING = 0.5, 8
"""Of the peak where the rise is first seen, and steps from there: less, and longer, is no jump in one step."""
SAME_STEP, SUMMED = 4, 3.0
"""Steps between a larger batch and what it brings about, and how much larger it must be."""
EARLY = 12
"""Steps within which a wrong rate of a fresh run shows."""


class LearningRateTooHigh:
    """Speaks from a leap of the rate just before, or from a blow-up at the very first updates."""

    word: ClassVar[str] = "learning_rate_too_high"
    explains: ClassVar[tuple[str, ...]] = (
        "explosion",
        "divergence",
        "loss_spike",
        "nonfinite",
        "update_ratio",
        "dead_relu",
        "plateau",
        "saturation",
        "miswired",
    )
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        rate = in_force(case, "learning_rate")
        momentum = endless_momentum(case)
        if (below := _below_zero(case)) is not None:
            return below
        if not rate or (case.opening.kind == "miswired" and not broken(case, "endless_momentum")):
            return None
        if momentum:
            return _of_momentum(case, rate, momentum)
        jump = leap(case, "learning_rate") or leap_elsewhere(case, "learning_rate")
        larger = leap(case, "batch_items", back=SAME_STEP, least=SUMMED)
        if larger and not jump and not optimizer_name(case).startswith(ADAPTIVE):
            return _of_batches(case, larger)
        ramp = _ramp(case, jump) if jump else None
        jump = ramp or jump
        began = jump.step if jump else case.opening.first_step
        return Opinion(
            clues=[*_of_rate(case, rate, jump), *_of_start(case), *_of_others(case)],
            title=(
                f"Learning rate rose {jump.factor:.3g}-fold from step {jump.step} to step {jump.until}"
                if jump and jump.until
                else f"Learning rate {jump.factor:.3g} times too high from step {jump.step}"
                if jump
                else f"Learning rate {rate:.3g} is too high"
            ),
            explanation=_explanation(case, rate, jump),
            remedy=_remedy(case, rate, jump),
            first_step=began,
        )


def _below_zero(case: Case) -> Opinion | None:
    """A schedule that goes on past its end: of a negative rate each step goes uphill."""
    series, onset = scalars(case, "learning_rate"), case.opening.step
    negative = np.flatnonzero((series.values < 0) & (series.steps <= onset))
    if not len(negative):
        return None
    step, rate = int(series.steps[negative[0]]), float(series.values[negative[-1]])
    scheduler = case.facts.get("scheduler")
    return Opinion(
        clues=[Clue(5.0, f"the learning rate is below zero from step {step} on ({rate:.3g} by step {onset})")],
        title=f"The learning rate is negative from step {step} on: each step goes uphill",
        explanation=(
            f"From step {step} on the learning rate is below zero, {rate:.3g} by step {onset}: the weights move along "
            "the gradient and not against it, so that each step makes the loss larger."
        ),
        remedy=(
            f"Bound what {scheduler or 'changes the rate'} multiplies with: `max(0.0, ...)`, or as many steps as the "
            f"run has. Resume from a checkpoint before step {step}."
        ),
        where="optimizer",
        first_step=step,
    )


def _of_momentum(case: Case, rate: float, momentum: float) -> Opinion:
    name = optimizer_name(case)
    return Opinion(
        clues=[Clue(5.0, f"the momentum of {name} is {momentum:g}: no step it has ever made is forgotten")],
        title=f"A momentum of {momentum:g} makes the steps of {name} grow without bound",
        explanation=(
            f"With momentum m the rate in effect is lr / (1 - m): {rate:.3g} / (1 - {momentum:g}) has no bound. Each "
            "gradient pushes in all later steps as strongly as in its own, and the weights swing ever further."
        ),
        remedy="Set the momentum to 0.9, or at most 0.99 with a lower learning rate.",
        where="optimizer",
        first_step=0,
    )


def _of_rate(case: Case, rate: float, jump: Leap | None) -> list[Clue]:
    if jump:
        later = case.opening.first_step - jump.step
        return [Clue(4.0, f"{_rise(jump)}, {later} steps before the {case.opening.kind}")]
    name = optimizer_name(case)
    limit = HIGH["adaptive" if name.startswith(ADAPTIVE) else "plain"]
    clues = []
    momentum = max(settings(case, "momentum"), default=0.0)
    effective = rate / (1 - momentum) if 0 <= momentum < 1 else rate
    if rate < limit <= effective and not name.startswith(ADAPTIVE) and not _had_learnt(case):
        said = f"with a momentum of {momentum:g} a rate of {rate:.3g} moves as far as one of {effective:.3g}"
        clues.append(Clue(1.0, f"{said}, and nothing had been learnt at it"))
    if rate >= limit:
        clues.append(Clue(1.5, f"{rate:.3g} is a high rate for {name or 'an optimizer'} (usual: below {limit:g})"))
    elif name and rate <= limit / 100:
        clues.append(Clue(-1.5, f"{rate:.3g} is a low rate for {name}"))
    values = scalars(case, "learning_rate").before(case.opening.first_step, 20)
    if len(values) > 4 and rate >= 1.5 * values[0] > 0:
        clues.append(Clue(1.0, f"the rate was still rising, from {values[0]:.3g} to {rate:.3g}"))
    if case.opening.evidence.get("signal") == "beyond_chance":
        clues.append(Clue(1.5, "the loss climbed step by step, as weights do that grow under steps too large for them"))
    if factor := compounding(case):
        clues.append(Clue(2.0, f"it grows by a factor of {factor:.4g} in each step, which no warm-up does"))
    start = first_value(case, "learning_rate")
    if start and rate >= max(limit, RISEN * start):
        clues.append(Clue(1.5, f"it is {rate / start:.3g} times the rate of the start, and beyond what is usual"))
    return clues


def _rise(jump: Leap) -> str:
    if jump.until:
        return (
            f"the learning rate rose step by step from {jump.before:.3g} before step {jump.step} to "
            f"{jump.after:.3g} at step {jump.until}"
        )
    return f"the learning rate went from {jump.before:.3g} to {jump.after:.3g} at step {jump.step}"


def _ramp(case: Case, jump: Leap) -> Leap | None:
    """The whole of a rise of which the leap was only the part within sight; ``None`` where it came in one step."""
    series = scalars(case, "learning_rate")
    at = series.at(jump.step)
    peak = np.flatnonzero((series.steps >= jump.step) & (series.values == jump.after))
    if (
        at is None
        or not len(peak)
        or not at <= GRADUAL * jump.after
        or int(series.steps[peak[0]]) - jump.step < LASTING
    ):
        return None
    top = int(peak[0])
    level = np.flatnonzero(np.diff(series.values[: top + 1]) <= 0)
    first = int(level[-1]) + 1 if len(level) else 0
    if not series.values[first] > 0:
        return None
    return Leap(int(series.steps[first + 1]), float(series.values[first]), jump.after, int(series.steps[top]))


def unusual_rate(case: Case) -> str:
    """A rate at the very start at which most nets do not train, in words; empty if it is none."""
    rate, name = first_value(case, "learning_rate"), optimizer_name(case)
    limit = HIGH["adaptive" if name.startswith(ADAPTIVE) else "plain"]
    if not name or rate is None or not rate >= limit or case.opening.first_step > EARLY:
        return ""
    return f"a learning rate of {rate:.3g} is high for {name} (usual: below {limit:g})"


def _of_batches(case: Case, grown: Leap) -> Opinion:
    """A loss that is summed over the batch makes steps that grow with it."""
    rows = f"batches went from {grown.before:.0f} to {grown.after:.0f} rows at step {grown.step}"
    opening = case.opening
    return Opinion(
        clues=[Clue(3.0, f"{rows}, just before the {opening.kind} of step {opening.first_step}"), *_of_others(case)],
        title=f"The learning rate does not suit batches of {grown.after:.0f} rows from step {grown.step} on",
        explanation=(
            f"{rows[:1].upper()}{rows[1:]}, and from step {opening.first_step} on the loss blew up. A loss that is "
            f"summed over its batch has a gradient that grows with it, so that steps became {grown.factor:.3g} times "
            "as large."
        ),
        remedy=(
            f"Average the loss over the batch (reduction='mean'), or divide the learning rate by {grown.factor:.3g} "
            f"there; resume from a checkpoint before step {grown.step}."
        ),
        first_step=grown.step,
    )


def _had_learnt(case: Case) -> bool:
    """Whether the loss had come down by half before it blew up: then the rate had been good for something."""
    values = scalars(case, "loss").before(case.opening.first_step + 1, case.opening.first_step + 1)
    values = values[np.isfinite(values)]
    return bool(len(values)) and float(values.min()) < 0.5 * float(values[0])


def _of_start(case: Case) -> list[Clue]:
    opening = case.opening
    if opening.kind not in ("explosion", "divergence", "nonfinite") or opening.first_step > EARLY:
        return []
    norm = first_value(case, "gradient_norm_unclipped") or first_value(case, "gradient_norm")
    if opening.kind == "nonfinite" and opening.first_step == 0:
        return [Clue(-4.0, "it was not finite before the first update")]
    if (signal := opening.evidence.get("signal")) in ("first_loss", "first_answers"):
        what = "the loss was" if signal == "first_loss" else "the answers were"
        return [Clue(-4.0, f"{what} {opening.value:.3g} before the first update already")]
    clues = [Clue(1.5, f"it began at step {opening.first_step}, with the first updates")]
    if (moved := first_move(case)) > THROWN and not raw_input(case):
        clues.append(Clue(2.0, f"the first update moved a layer by {moved:.0%} of its weights"))
    if norm is not None and norm < 100:
        clues.append(Clue(1.0, f"the gradient was ordinary ({norm:.3g}) before the first update"))
    return clues


def _of_others(case: Case) -> list[Clue]:
    clues = []
    if case.opening.kind == "nonfinite":
        clues.append(Clue(-1.5, "loss and gradient were ordinary until they were not finite"))
    if case.opening.kind in ("dead_relu", "saturation", "plateau"):
        clues.append(Clue(-0.5, f"{case.opening.kind} has closer causes"))
    if case.opening.kind == "dead_relu" and not case.opening.evidence.get("from_start") and unusual_rate(case):
        clues.append(Clue(1.5, f"the units died in the first {case.opening.first_step + 1} steps made at it"))
    raw = raw_input(case)
    if raw and case.opening.first_step <= EARLY:
        clues.append(Clue(-1.5, f"the inputs are {raw:.3g} large: the rate is too high for them alone"))
    moved = largest_move(case)
    if moved is not None and moved < STILL:
        clues.append(Clue(-2.5, f"no layer moved by more than {moved:.2g} of its weights in a step"))
    ratios = case.of_kind("update_ratio")
    if ratios and ratios[0].value > 0.01:
        clues.append(Clue(1.0, f"updates of {ratios[0].value:.2g} of the weights in one step"))
    fresh = leap(case, "input_absmax", back=2, least=10)
    if fresh:
        clues.append(Clue(-2.0, f"the input reached {fresh.after:.3g}, {fresh.factor:.3g} times its largest before"))
    if in_the_batch(case):
        clues.append(Clue(-4.0, "the batch itself was not finite, whatever the rate"))
    if never_cleared(case) >= 4:
        clues.append(Clue(-3.0, "the gradients are never cleared, which multiplies the steps"))
    return clues


def _explanation(case: Case, rate: float, jump: Leap | None) -> str:
    opening = case.opening
    if opening.kind == "dead_relu":
        layer = opening.name or "a layer"
        grown = f"From step {opening.first_step} on {opening.value:.0%} of the units of {layer} are silent."
    else:
        limit = opening.threshold
        grown = f"The loss reached {opening.value:.3g} by step {opening.step}; it should stay below {limit:.3g}."
    if jump:
        return f"{_rise(jump).capitalize()}. {grown} Each step overshoots the minimum by more than the last."
    return f"The learning rate is {rate:.3g}. {grown} Each step overshoots the minimum by more than the last."


def _remedy(case: Case, rate: float, jump: Leap | None) -> str:
    scheduler = case.facts.get("scheduler")
    if jump:
        source = f"Look at {scheduler}" if scheduler else "Look for what changes the learning rate"
        return (
            f"{source} at step {jump.step}: it should stay near {jump.before:.3g}. Resume from a checkpoint before "
            "that step; the weights and the optimizer's moments after it are spoilt."
        )
    clip = "" if case.facts.get("clips") else " and clip the gradient norm to 1"
    return f"Start with {rate / 10:.2g} or less, warm it up over the first few hundred steps{clip}."
