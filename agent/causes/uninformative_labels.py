"""The labels have nothing to do with the inputs: shuffled apart, off by one, of another file, or noise."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.kinds import outlived
from torchvitals.agent.nothing_moves import rounded_away, standstill, throttled, usual_move
from torchvitals.agent.step_evidence import leap, scalars

WORKING = (1e-5, 0.1)
"""Rates at which a net learns what can be learnt, as a rule."""
CONSEQUENCES = ("divergence", "loss_spike", "plateau", "overfit", "lost_progress")
"""What a loss does when labels no longer fit. Units that die or numbers that grow are something else,
unless the units were seen to work after it."""
MOVES = 1e-6
"""Relative change by which weights move in an ordinary step (1e-3) and a thousandth of that."""


class UninformativeLabels:
    """Speaks from a loss at chance although all that learning takes is there: rate, gradient, moving weights."""

    word: ClassVar[str] = "uninformative_labels"
    explains: ClassVar[tuple[str, ...]] = ("plateau", "divergence")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if standstill(case):
            return None  # whether there is something to learn has not been tried
        plateau = case.of_kind("plateau")
        if not plateau:
            return _no_longer(case)
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


def _no_longer(case: Case) -> Opinion | None:
    """A classifier lost what it knew within one step, and nothing but what it is shown can have changed so fast."""
    lost = next((f for f in case.of_kind("divergence") if f.evidence.get("signal") == "chance"), None)
    if lost is None:
        return None
    before, chance = float(lost.evidence["level_before"]), float(lost.evidence["chance"])
    clues = [
        Clue(2.0, f"the loss went from {before:.3g} to that of a guess ({chance:.3g}) at one step, and stays there")
    ]
    others = (f for f in case.findings if f.kind not in CONSEQUENCES and not outlived(lost, f))
    if other := next(others, None):
        clues.append(Clue(-4.0, f"the {other.kind.replace('_', ' ')} of step {other.first_step} says why"))
    if leap(case, "learning_rate"):
        clues.append(Clue(-3.0, "the learning rate leapt"))
    if scalars(case, "weights_overwritten").at(lost.first_step):
        clues.append(Clue(-3.0, "weights were written to just before"))
    sizes = scalars(case, "input_absmax")
    since, usual = sizes.values[sizes.steps >= lost.first_step], sizes.before(lost.first_step, 40)
    if len(since) and len(usual):
        same = bool(0.1 * np.median(usual) <= np.median(since) <= 10 * np.median(usual))
        said = f"inputs are as large as before ({np.median(since):.3g}, {np.median(usual):.3g})"
        clues.append(Clue(1.5, said) if same else Clue(-2.0, said.replace("are as large as", "are not as large as")))
    return Opinion(
        clues=clues,
        title=f"What was learnt is lost at step {lost.first_step}: labels no longer fit",
        explanation=(
            f"At step {lost.first_step} the loss went from {before:.3g} to {lost.value:.3g}, where a guess costs "
            f"{chance:.3g}, and has not come down in {lost.step - lost.first_step} steps. The same weights knew the "
            "answers a step before, so the labels no longer belong to their inputs."
        ),
        remedy=(
            f"Look at the samples and labels of step {lost.first_step} and after, and at what was read from there on: "
            "another file, another epoch's shuffle, another table of classes."
        ),
        where="target",
        first_step=lost.first_step,
    )


def _of_rate(case: Case) -> list[Clue]:
    rates = scalars(case, "learning_rate").values
    usual = float(np.median(rates)) if len(rates) else 0.0
    if WORKING[0] <= usual <= WORKING[1]:
        return [Clue(1.0, f"the learning rate is ordinary ({usual:.3g})")]
    return [Clue(-2.0, f"the learning rate is {usual:.3g}, at which many nets do not learn")]


def _of_movement(case: Case) -> list[Clue]:
    """The weights move by an ordinary share of themselves."""
    ratio = usual_move(case)
    if ratio is None:
        return []
    if lost := rounded_away(case):
        return [Clue(-2.0, f"the weights are {lost.dtype}, and most of each step is rounded away")]
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
