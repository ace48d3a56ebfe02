"""One batch that is not like the others: broken values, another unit, a hole in the file."""

from typing import Any, ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.loss_leap import factors, in_words, thrown
from torchvitals.agent.step_evidence import (
    LOOK_BACK,
    at_onset,
    culprit,
    grew,
    in_the_batch,
    leap,
    origin,
    raised_rate,
    scalars,
)

LEAP = 100.0
"""Times the largest loss of the last steps; a step that is too large makes the loss leap by less, and the next ones."""
ENOUGH = 10
"""Losses before, from which it is known what is usual."""
STEADY = 10.0
"""Times the usual gradient: batches differ by less, and what blows up has passed it a step before the loss leaps."""
NOTHING = 0.01
"""Of the usual size. Pixels that are divided by 255 once more are 0.004 of it."""
EMPTY = 1e-6
"""Of the usual size: nothing is left that could have been scaled."""

UNSEEN = 2.0
"""For a target that nobody has looked at: what is left over is no proof."""

LASTING, LATER = 4, 16
"""Batches that must be known, one of them so many steps later, before it is said that they are all larger."""
LARGER = 3.0
"""Times the largest of before; the largest values of ordinary batches differ by less."""

FEW_NAMED, MANY_ROWS = 4, 16
"""Rows and columns that are named one by one; rows from which it is no sample any more (the hooks name 32 at most)."""
COMPUTED = (
    " So many rows are no sample's fault: look at what computes the input, for a division by 0, or a root or a "
    "logarithm of what is below 0."
)


class BadBatch:
    """Speaks from the input at the onset: not finite, or far larger than any before."""

    word: ClassVar[str] = "bad_batch"
    explains: ClassVar[tuple[str, ...]] = ("nonfinite", "loss_spike", "explosion", "divergence")
    prior: ClassVar[float] = -0.5

    def weigh(self, case: Case) -> Opinion | None:
        found = origin(case) or {}
        clues = [*_of_values(case, found), *_of_size(case), *_of_targets(case), *_of_course(case)]
        if not any(clue.weight > 0 for clue in clues):
            return None
        step, others = case.opening.first_step, bool(_of_nothing(case)) or _grown(case) > 0
        headline = _of_shrunk(case) or _of_grown(case) or f"The batch of step {step} is bad"
        targets = clues[0] in _of_targets(case)
        which = "" if targets else _which(found)  # what the replay of a later step met is another matter
        what = "batch" if targets or found.get("outside") else "input"
        return Opinion(
            clues=clues,
            title=headline,
            explanation=f"The {what} of step {step} is not like the others: {clues[0].text}. {which}".strip(),
            remedy=(
                f"Look at what reads and scales the samples, which are others from step {step} on. What works "
                "in place (`div_`, `sub_`, `/=`) on a stored sample scales it anew in each epoch."
                if others
                else f"Look at the samples of the batch of step {step} and at what reads and scales them; drop or "
                "repair non-finite and outlying rows in the dataset, and clip the gradient so that one batch can't do "
                "harm."
            ),
            where="target" if targets else _place(found) or ("input" if others else ""),
            rank=culprit(case),
        )


def _of_lengths(found: dict[str, Any]) -> list[Clue]:
    """The one loss that is infinite, by definition, for a sample that does not fit itself."""
    if "ctc_loss" not in str(found.get("operation")) or found.get("value") != "inf":
        return []
    rows = found.get("batch_rows") or []
    which = f" of row {rows[0]}" if len(rows) == 1 else f" of rows {rows}" if rows else ""
    return [Clue(4.0, f"`ctc_loss` is infinite where a target{which} is longer than its input, and only there")]


def _of_values(case: Case, found: dict[str, Any]) -> list[Clue]:
    if lengths := _of_lengths(found):
        return lengths
    clues = []
    if in_the_batch(case):
        where = "a target, which the model does not get" if found.get("outside") else "the batch itself"
        clues.append(Clue(4.0, f"the replay found non-finite values in {where}"))
    elif found.get("batch_finite") and case.opening.kind == "nonfinite":
        outlying = bool(_of_size(case))  # finite, and for all that not like the others
        clues.append(Clue(-0.5 if outlying else -3.0, "the replay found the batch finite"))
    broken = at_onset(case, "input_nonfinite")
    largest = at_onset(case, "input_absmax")
    if broken:
        clues.append(Clue(3.0, "the model's input held NaN or Inf"))
    elif broken == 0 and case.opening.kind == "nonfinite" and largest is not None:
        outlying = bool(_of_size(case))
        clues.append(Clue(-0.5 if outlying else -2.0, "the model's floating inputs were finite"))
    return clues


def _of_size(case: Case) -> list[Clue]:
    if empty := _of_nothing(case):
        return empty
    fresh = leap(case, "input_absmax", back=2, least=10)
    if not fresh:
        return []
    said = f"its largest value is {fresh.after:.3g}, {fresh.factor:.3g} times the largest before"
    return [Clue(3.5 if fresh.factor > 30 else 2.0, said)]


def _of_nothing(case: Case) -> list[Clue]:
    """Inputs that are next to nothing from the onset on."""
    after, usual = _shrunk(case)
    return [Clue(3.5, f"its largest value is {after:.3g}, where {usual:.3g} is usual")] if usual else []


def _of_shrunk(case: Case) -> str:
    """The same as a headline; empty where they have not shrunk."""
    after, usual = _shrunk(case)
    if not usual:
        return ""
    smaller = "empty" if after <= EMPTY * usual else f"{usual / after:.3g} times smaller"
    return f"The inputs are {smaller} from step {case.opening.first_step} on"


def _of_grown(case: Case) -> str:
    """That they are larger for good, as a headline; empty where they are not."""
    grown = _grown(case)
    return f"The inputs are {grown:.3g} times larger from step {case.opening.first_step} on" if grown else ""


def _grown(case: Case) -> float:
    """How many times larger the inputs are from the onset on, where most batches since are; else 0."""
    sizes, onset = scalars(case, "input_absmax"), case.opening.first_step
    since, usual = sizes.values[sizes.steps > onset], sizes.before(onset, LOOK_BACK)
    lasts = len(since) >= LASTING and sizes.steps[-1] >= onset + LATER and bool(np.isfinite(since).all())
    if not lasts or len(usual) < 2:
        return 0.0
    grown = float(np.median(since) / max(float(np.max(usual)), 1e-30))
    return grown if grown >= LARGER and float(np.max(usual)) > 0 else 0.0


def _shrunk(case: Case) -> tuple[float, float]:
    """The largest value of the inputs from the onset on and the usual one, where that is far larger; else zeros."""
    sizes, onset = scalars(case, "input_absmax"), case.opening.first_step
    since, usual = sizes.values[sizes.steps >= onset][:4], sizes.before(onset, LOOK_BACK)
    if len(since) and len(usual) and not since[0] <= NOTHING * np.median(usual):
        since = since[1:]  # the onset may be a step early
    if len(since) < 2 or len(usual) < 2 or not since.max() <= NOTHING * np.median(usual):
        return 0.0, 0.0
    return float(since.max()), float(np.median(usual))


def _of_targets(case: Case) -> list[Clue]:
    """The loss leapt in one step, which no ordinary step before can have done, and the input is as large as ever."""
    losses, onset = scalars(case, "loss"), case.opening.first_step
    dead = case.of_kind("dead_relu", "saturation")
    if case.opening.kind not in BadBatch.explains or any(finding.first_step <= onset for finding in dead):
        return []  # units that were silent before any step was made on this batch: the model is not what it was
    at, before = losses.at(onset), losses.before(onset, LOOK_BACK)
    before = before[np.isfinite(before)]
    if at is None or len(before) < ENOUGH or not np.isfinite(at) or not at >= LEAP * np.abs(before).max() > 0:
        return []
    norms = scalars(case, "gradient_norm").before(onset, ENOUGH)
    steady = len(norms) > 1 and bool(norms.max() <= STEADY * np.median(norms))
    moved = raised_rate(case) or scalars(case, "weights_overwritten").at(onset) or at_onset(case, "eval_mode_passes")
    size = at_onset(case, "input_absmax")
    if not steady or moved or size is None or _of_size(case):
        return []
    return _left_over(case, f"the loss went from {np.abs(before).max():.3g} to {at:.3g} at once", size, bool(dead))


def _left_over(case: Case, leapt: str, size: float, dead: bool) -> list[Clue]:
    """Of what makes a loss, that which nobody has looked at: the target, or what is done with it."""
    if thrown(case):
        return []
    grown = factors(case)
    told = f"{leapt}, after an ordinary gradient and rate, and the input is as large as ever ({size:.3g})"
    if grown and grown.multiplied:
        return [Clue(0.5, f"{told}; the target was not looked at")]
    if grown and grown.squared:
        root = f"the gradient grew {in_words(grown.gradient)} times where the loss grew {in_words(grown.loss)} times"
        return [Clue(2.0 if dead else 3.5, f"{told}: the target is what is left; {root}, as of targets far off")]
    return [Clue(1.0 if dead else UNSEEN, f"{told}: what is left is the target, or how the loss is computed from it")]


def _of_course(case: Case) -> list[Clue]:
    clues = []
    if case.opening.kind == "loss_spike" and not _grown(case):
        clues.append(Clue(1.5, "one step stood out, and the job came back by itself"))
    if grew(case) and case.opening.kind == "divergence":
        clues.append(Clue(-1.0, "the loss rose over many steps"))
    jump = leap(case, "learning_rate")
    if jump and not in_the_batch(case):
        clues.append(Clue(-1.5, f"the learning rate had gone to {jump.after:.3g} at step {jump.step}"))
    return clues


def _place(found: dict[str, Any]) -> str:
    if found.get("operation") != "batch" and found.get("batch_finite") is not False and not _of_lengths(found):
        return ""
    columns, rows = found.get("columns") or [], found.get("batch_rows") or []
    what = "target" if found.get("outside") or _of_lengths(found) else "input"
    if len(columns) == 1:
        return f"{what} column {columns[0]}"
    return f"{what} row {rows[0]}" if len(rows) == 1 else what


def _which(found: dict[str, Any]) -> str:
    columns, rows = found.get("columns") or [], found.get("batch_rows") or []
    said = [f"rows {_numbers(rows)}"] if rows else []
    said += [f"columns {_numbers(columns)}"] if columns else []
    return f"Affected: {', '.join(said)}.{COMPUTED if len(rows) >= MANY_ROWS else ''}" if said else ""


def _numbers(places: list[int]) -> str:
    """In as few words as they need."""
    if len(places) > FEW_NAMED and places == list(range(places[0], places[-1] + 1)):
        return f"{places[0]} to {places[-1]}"
    named = ", ".join(map(str, places[:FEW_NAMED]))
    return f"{named} and others" if len(places) > FEW_NAMED else named
