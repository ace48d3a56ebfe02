"""The optimizer steps with a learning rate of zero, or one so small that no weight moves."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.history import Series
from torchvitals.agent.nothing_moves import excused, standstill
from torchvitals.detectors.detector import Finding

NEGLIGIBLE = 1e-7
"""A rate at which float32 weights near 1 do not move even for gradients near 1."""


class LearningRateZero:
    """Speaks from the rate itself."""

    word: ClassVar[str] = "learning_rate_zero"
    explains: ClassVar[tuple[str, ...]] = ("stuck_parameters", "update_ratio", "plateau")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        rates = case.history.series("learning_rate", None, case.opening.optimizer)
        step = case.opening.first_step
        # As long as the finding looked, and no longer: a rate may come back.
        within = (rates.steps >= step) & (rates.steps <= max(finding.step for finding in case.findings))
        since = rates.values[within]
        if not len(since):
            return None
        if (still := standstill(case)) and not excused(still):
            return _too_small(float(np.median(since)), still)
        if not np.median(since) <= NEGLIGIBLE:
            return None
        zeros = _zero_finding(case)
        first = zeros.first_step if zeros else step
        rate = float(np.median(since))
        if rate > 0 and not zeros:
            rate = float(since[np.argmax(since <= NEGLIGIBLE)])
        before = float(np.max(rates.before(first, 10), initial=0.0))
        was = f" (it was {before:.3g} before)" if before > rate else ""
        return Opinion(
            clues=_clues(rate, before, zeros),
            title=f"Learning rate {'zero' if rate == 0 else f'{rate:.1e}'} from step {first}",
            explanation=_fallen(rates, rate, first, int(rates.steps[within][-1]))
            if not zeros and since.min() < since.max()
            else f"The learning rate is {rate:.3g} from step {first} on{was}: steps are made, and no weight moves.",
            remedy=_remedy(case, before),
            where="optimizer",
            first_step=first,
        )


def _fallen(rates: Series, rate: float, first: int, last: int) -> str:
    """A schedule that goes on falling, from where it was highest."""
    highest = float(rates.values.max())
    since = int(rates.steps[np.flatnonzero(rates.values == highest)[-1]])
    return (
        f"The learning rate has fallen from {highest:.3g} (step {since}) to {rate:.3g} (step {first}), and is "
        f"{rates.at(last):.3g} at step {last}: the optimizer steps, and no weight moves."
    )


def _too_small(rate: float, still: Finding) -> Opinion:
    return Opinion(
        clues=[
            Clue(
                3.0, f"no step moved any layer by more than {still.value:.1e} of its weights, at a rate of {rate:.3g}"
            ),
            Clue(1.0, "there is a gradient to follow, and neither clipping nor eps makes the steps small"),
        ],
        title=f"Learning rate {rate:.1e} is too small: nothing has been learnt",
        explanation=(
            f"At a learning rate of {rate:.3g} no step has moved any layer by more than {still.value:.1e} of its "
            f"weights, and after {still.step - still.first_step} steps the loss is where it began, at "
            f"{float(still.evidence.get('loss', 0.0)):.3g}."
        ),
        remedy=(
            f"Try {min(rate * 1000, 0.1):.1g}: a step should move the weights by about a thousandth. Look for a unit "
            "or an exponent lost on the way from the configuration, and for a rate that is divided twice."
        ),
        where="optimizer",
        first_step=still.first_step,
    )


def _zero_finding(case: Case) -> Finding | None:
    found = (f for f in case.of_kind("stuck_parameters") if f.evidence.get("relation") == "learning_rate_zero")
    return next(found, None)


def _clues(rate: float, before: float, zeros: Finding | None) -> list[Clue]:
    clues = []
    if rate == 0:
        clues.append(Clue(4.0, "the learning rate is exactly 0"))
    else:
        clues.append(Clue(2.5, f"the learning rate is {rate:.1e}, under the resolution of float32 weights"))
    if zeros:
        clues.append(Clue(1.0, f"for {zeros.value:.0f} applied steps in a row"))
    if before > NEGLIGIBLE:
        clues.append(Clue(0.5, f"it was {before:.3g} just before"))
    return clues


def _remedy(case: Case, before: float) -> str:
    scheduler = case.facts.get("scheduler")
    if scheduler and before > 0:
        return (
            f"Look at {scheduler}: it ends before the training does. Give it the real number of steps, and call its "
            "step() once per optimizer step if that is what it counts."
        )
    if scheduler:
        return f"Look at the first value of {scheduler}: its factor is 0, or its step() is never called."
    return "Set the optimizer's learning rate: it is set to zero, or lost on the way from the configuration."
