"""A loss that is multiplied by zero on purpose, until the other networks of a job can do something."""

import numpy as np
from torchvitals.agent.case import Case
from torchvitals.agent.step_evidence import MOST_OPTIMIZERS

FOLLOWS = ("vanishing", "stuck_parameters", "plateau")
"""What is found of an optimizer that gets nothing but zeros."""


def switched_off(case: Case) -> str:
    """Why gradients of exactly zero are no fault here; else empty.

    Their loss has been exactly zero since the first step, and another optimizer of the job learns: recipes for learned
    codecs begin so with the discriminator (``disc_start``). Of a job with one loss nothing of the kind is known.
    """
    first = next((f for f in case.of_kind("vanishing") if f.evidence.get("everywhere")), None)
    if first is None or first.value or any(finding.kind not in FOLLOWS for finding in case.findings):
        return ""
    own = case.history.series("loss", case.opening.rank, first.optimizer)
    so_far = own.values[own.steps <= first.step]
    if not len(so_far) or so_far.any() or not _learns(case, first.optimizer):
        return ""
    return f"the loss of optimizer {first.optimizer} is exactly zero from the first step on while another one learns"


def _learns(case: Case, but: int) -> bool:
    """Whether an optimizer other than ``but`` has a loss that changes."""
    others = (case.history.series("loss", case.opening.rank, n) for n in range(MOST_OPTIMIZERS) if n != but)
    return any(len(each.values) > 1 and np.ptp(each.values[np.isfinite(each.values)]) > 0 for each in others)
