"""What wrecked weights bring about for as long as the job has not recovered, however much later it shows."""

import numpy as np
from torchvitals.agent.history import History
from torchvitals.agent.kinds import follows, outlived, soon
from torchvitals.detectors.detector import Finding

VIOLENT = ("explosion", "divergence", "lost_progress")
"""Events after which the weights are not what they were; the loss says for how long. What is not finite stays so."""
STATES_OF_UNITS = ("dead_relu", "saturation", "vanishing")
"""What units come to in wrecked weights, sooner or later."""
BLOCK = 32
"""Losses of which nearly all must be ordinary again: wrecked weights that answer with certainty cost nothing where
they are right, most of the time, and hundreds where they are wrong."""
NEARLY = 0.9
BEFORE, LATE = 40, 4
"""Losses before the event whose largest is the most that is usual, without the last: an onset may be dated late."""
REGAINED = 0.9
"""Share of what had been learnt since the start that is as good as all of it."""


def leads(cause: Finding, effect: Finding, history: History) -> bool:
    """Whether ``effect`` can be a consequence of ``cause``: soon after it, or while the job still suffers from it."""
    return follows(cause, effect) or in_aftermath(cause, effect, history)


def in_aftermath(cause: Finding, effect: Finding, history: History) -> bool:
    """Whether units died, or went flat, before the loss had come back from a violent event, or soon after it had.

    Units that die at the step at which the loss is lost may as well be why: of a loss that went to that of a guess
    they are a consequence only once they were seen to work after it.
    """
    if cause.kind not in VIOLENT or effect.kind not in STATES_OF_UNITS or cause.optimizer != effect.optimizer:
        return False
    if effect.evidence.get("signal") == "weights" or effect.evidence.get("from_start"):
        return False  # decay shrinks weights by itself; and what was so from the start has no cause that came later
    began = _earliest(effect)
    if effect.first_step < cause.first_step:
        return False
    if cause.evidence.get("signal") == "chance" and not outlived(cause, effect):
        return False
    back = recovered(cause, history, began)
    return back is None or began <= back + soon(back)


def _earliest(units: Finding) -> int:
    """The first step at which they may have died: samples can be hundreds of steps apart."""
    alive = int(units.evidence.get("alive_at", -1))
    return min(units.first_step, alive + 1) if alive >= 0 else units.first_step


def recovered(cause: Finding, history: History, until: int) -> int | None:
    """The step before ``until`` by which the loss had come back to where it was before ``cause``; ``None`` if it had
    not. Where no loss before it is known there is nothing to come back to: then the event was over at once.
    """
    series = history.series("loss", cause.rank, cause.optimizer)
    past = series.values[(series.steps < cause.first_step) & np.isfinite(series.values)]
    if not len(past):
        return cause.step
    usual = past[-BEFORE - LATE : -LATE] if len(past) > LATE else past
    start, settled = float(np.median(past[:BLOCK])), float(np.median(usual))
    level = max(float(usual.max()), settled + (1 - REGAINED) * (start - settled))
    since = (series.steps >= cause.first_step) & (series.steps < until)
    steps, values = series.steps[since], np.where(np.isfinite(series.values[since]), series.values[since], np.inf)
    blocks = len(values) // BLOCK
    high = values[: blocks * BLOCK].reshape(blocks, BLOCK) > level
    good = np.flatnonzero(high.mean(axis=1) <= 1 - NEARLY)
    return int(steps[good[0] * BLOCK + BLOCK - 1]) if len(good) else None
