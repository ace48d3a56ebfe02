"""The sign of the loss is turned: what should be made small is made large."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.step_evidence import scalars
from torchvitals.detectors.detector import Finding

FALLEN = 20.0
"""Times its magnitude of before that a loss must have fallen below zero: a rate that is too high makes it rise."""


class MaximizedLoss:
    """Speaks from the graph of the loss, from ``maximize=True``, and from a loss that falls without end below zero."""

    word: ClassVar[str] = "maximized_loss"
    explains: ClassVar[tuple[str, ...]] = ("divergence", "explosion")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        read = next((f for f in case.findings if f.evidence.get("signal") == "turned_loss"), None)
        turned = next((f for f in case.findings if f.evidence.get("signal") == "loss_sign"), None)
        endless = next((f for f in case.findings if f.evidence.get("signal") == "no_minimum"), None)
        if endless and not read and not turned:
            return _without_minimum(endless)
        if clue := _clue(case, read, turned):
            known = read or turned
            first = known.first_step if known else case.opening.first_step
            return Opinion(
                clues=clue,
                title=_title(read, first),
                explanation=_explanation(case, read, first),
                remedy=_remedy(read),
                where=read.name if read else "",
                first_step=first,
            )
        return None


def _without_minimum(finding: Finding) -> Opinion:
    """It came down through zero, as a likelihood does, and did not end there."""
    start, grown = float(finding.evidence["start"]), float(finding.evidence["gradient_grew"])
    return Opinion(
        clues=[
            Clue(4.0, f"the loss fell from {start:.3g} through zero to {finding.value:.3g}, and goes on falling"),
            Clue(0.5, f"the gradient is {grown:.3g} times as large as at the start: no minimum is near"),
        ],
        title=f"The loss has no lowest value: it falls without end from step {finding.first_step}",
        explanation=(
            f"The loss fell from {start:.3g} through zero at step {finding.first_step} to {finding.value:.3g} by step "
            f"{finding.step}, and its gradient grew {grown:.3g}-fold meanwhile. A term of it is made large instead of "
            "small: a penalty, a divergence or a distance that is subtracted."
        ),
        remedy=(
            "Look at the sign of each term of the loss: regularisers and divergences (KL) are added. Log the terms one "
            "by one; the one that runs away is it. A distance that is to grow needs a margin."
        ),
        first_step=finding.first_step,
    )


def _clue(case: Case, read: Finding | None, turned: Finding | None) -> list[Clue]:
    clues = []
    if read:
        how = "the optimizer maximises" if read.evidence.get("maximize") else "less of the loss is more of"
        clues.append(Clue(5.0, f"{how} `{read.evidence.get('function')}`, which cannot be below zero"))
        start = float(read.evidence.get("start", 0.0))
        clues.append(Clue(1.0, f"its magnitude went from {start:.3g} to {abs(read.value):.3g}"))
    if turned:
        before = float(turned.evidence.get("level_before", 0.0))
        clues.append(Clue(3.5, f"the loss jumped from {before:.3g} to below zero, and runs away from there"))
    elif not read and (fall := _fall(case)):
        clues.append(Clue(3.0, f"the loss fell from {fall[0]:.3g} to {fall[1]:.3g}: a rate too high makes it rise"))
    return clues


def _fall(case: Case) -> tuple[float, float] | None:
    """Typical losses before the onset, and where they have fallen to below zero since."""
    series = scalars(case, "loss")
    finite = np.isfinite(series.values)
    steps, values = series.steps[finite], series.values[finite]
    before = values[steps < max(case.opening.first_step, 8)][-32:]
    after = values[steps >= case.opening.first_step]
    if not len(before) or not len(after):
        return None
    lowest, usual = float(after.min()), float(np.median(before))
    sunk = lowest < -FALLEN * max(float(np.abs(before).max()), 1e-3) and float(after.max()) < -lowest / 2
    return (usual, lowest) if sunk else None


def _title(read: Finding | None, first: int) -> str:
    if read and read.evidence.get("maximize"):
        return "The optimizer maximises the loss: it was made with maximize=True"
    return f"The loss is maximised from step {first} on: its sign is turned"


def _explanation(case: Case, read: Finding | None, first: int) -> str:
    if read is None:
        return (
            f"From step {first} on the loss falls below zero without end, which an optimum would stop: what is "
            f"minimised has no lowest value. By step {case.opening.step} it was beyond any loss of before."
        )
    how = "maximize=True" if read.evidence.get("maximize") else "a minus sign, or a negative weight"
    return (
        f"`{read.evidence.get('function')}` reaches the optimizer through {how}, so that each step makes the model "
        f"worse: the loss went from {float(read.evidence.get('start', 0.0)):.3g} at the start to "
        f"{abs(read.value):.3g} by step {read.step}."
    )


def _remedy(read: Finding | None) -> str:
    if read and read.evidence.get("maximize"):
        return "Drop maximize=True: it is for objectives, such as a likelihood or a return, and not for losses."
    return (
        "Take the minus sign off the loss, or put one before a likelihood, a return or a similarity that is to grow. "
        "If the model is to unlearn, stop at a bound."
    )
