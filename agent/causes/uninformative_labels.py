"""The labels have nothing to do with the inputs: shuffled apart, off by one, of another file, or noise."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.nothing_moves import standstill, throttled
from torchvitals.agent.step_evidence import scalars

WORKING = (1e-5, 0.1)
"""Rates at which a net learns what can be learnt, as a rule."""
MOVES = 1e-6
"""Relative change by which weights move in an ordinary step (1e-3) and a thousandth of that."""


class UninformativeLabels:
    """Speaks from a loss at chance although all that learning takes is there: rate, gradient, moving weights."""

    word: ClassVar[str] = "uninformative_labels"
    explains: ClassVar[tuple[str, ...]] = ("plateau",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if standstill(case):
            return None  # whether there is something to learn has not been tried
        plateau = case.of_kind("plateau")
        if not plateau:
            return None
        found = plateau[0]
        classes = int(found.evidence.get("classes", 0))
        clues = [*_of_rate(case), *_of_movement(case), *_of_start(case, found.evidence.get("chance", 0.0))]
        if (times := throttled(case)) > 1:
            clues.append(Clue(-3.0, f"clipping leaves 1/{times:.3g} of the gradient"))
        if case.opening.kind != "plateau":
            clues.append(Clue(-4.0, f"the {case.opening.kind} of step {case.opening.first_step} came first"))
        if not any(clue.weight > 0 for clue in clues):
            return None
        return Opinion(
            clues=clues,
            title=f"The loss stays at chance for {classes} classes: nothing to learn",
            explanation=(
                f"The loss is {found.value:.4g} and that of guessing among {classes} classes is "
                f"{found.evidence.get('chance', 0.0):.4g}, though gradients arrive and weights move. The labels seem "
                "to have nothing to do with the inputs."
            ),
            remedy=(
                "Look at a few samples with their labels as they reach the loss: both must be shuffled by one "
                "permutation, read from the same rows, and mapped by one table. Then see that ten samples can be "
                "learnt by heart."
            ),
        )


def _of_rate(case: Case) -> list[Clue]:
    rates = scalars(case, "learning_rate").values
    usual = float(np.median(rates)) if len(rates) else 0.0
    if WORKING[0] <= usual <= WORKING[1]:
        return [Clue(1.0, f"the learning rate is ordinary ({usual:.3g})")]
    return [Clue(-2.0, f"the learning rate is {usual:.3g}, at which many nets do not learn")]


def _of_movement(case: Case) -> list[Clue]:
    """The weights move by an ordinary share of themselves."""
    rank, optimizer = case.opening.rank, case.opening.optimizer
    updates = case.history.profiles("parameter_update_norm", rank, optimizer)
    weights = case.history.profiles("parameter_weight_norm", rank, optimizer)
    if not updates or not weights or updates[-1].values.shape != weights[-1].values.shape:
        return []
    moved, size = updates[-1].values, weights[-1].values
    known = np.isfinite(moved) & np.isfinite(size) & (moved >= 0) & (size > 0)
    if not known.any():
        return []
    ratio = float(np.median(moved[known] / size[known]))
    if ratio > MOVES:
        return [Clue(1.5, f"the weights move by {ratio:.1e} of themselves in a step")]
    return [Clue(-2.0, f"the weights hardly move: by {ratio:.1e} of themselves in a step")]


def _of_start(case: Case, chance: float) -> list[Clue]:
    """A net that came down to chance from wild values was wrecked, and knows nothing of its labels."""
    losses = scalars(case, "loss")
    if not len(losses.values) or losses.steps[0] > 1 or not chance:
        return []
    start = float(losses.values[0])
    if start <= 1.5 * chance:
        return [Clue(0.5, f"it has been there from the first step ({start:.3g})")]
    return [Clue(-2.0, f"it began at {start:.3g}, far above chance")]
