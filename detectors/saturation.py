"""Tanh and sigmoid units stuck where their slope is next to nothing.

(Glorot and Bengio, AISTATS 2010, section 3: saturated units block the gradient and leave slowly if at all.) The
signal is the share of outputs at which the slope is under 5 % of its maximum; modules whose output is the
model's answer do not send it, because a classifier may be certain.
"""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown
from torchvitals.detectors.streak import Streak

MOVES = 8
"""Samples that a mean of distances remembers."""


class Saturation:
    """Hidden activations that are flat for nearly all inputs, from the start or since a fault.

    Args:
        share: of the outputs that must be flat. Trained tanh and sigmoid nets reach 60 %, gates 75 %.
        rise: above the module's own reference.
        from_start: a share that was this high from the first sample on counts without a rise.
        reference: samples whose median is a module's own past.
        patience: samples in a row.
        crept: the same for a share that has crept up, over two samples or more that were past ``rise`` and not yet at
            ``share``. Training takes units there on its way to large answers (the values of a critic, targets that
            nobody scaled), and it takes a while to see from the loss whether it still learns.
        watched: steps for which such a share must have been high: four medians of 16 losses.
        steady: a rise must be so many times what the share usually moves from one sample to the next: what leaps to
            and fro is not stuck.

    >>> detector = Saturation()
    >>> for step in range(0, 100, 10):
    ...     for finding in detector.update(Reading.of(step, module_saturated_share=[0.1, 0.95 if step >= 60 else 0.2])):
    ...         print(finding.step, finding.subject, finding.first_step, finding.evidence["reference"])
    80 1 55 0.2
    """

    kind: ClassVar[str] = "saturation"
    axis: ClassVar[DetectorAxis] = "module"
    reads: ClassVar[tuple[str, ...]] = ("module_saturated_share",)

    def __init__(
        self,
        *,
        share: float = 0.8,
        rise: float = 0.3,
        from_start: float = 0.85,
        reference: int = 4,
        patience: int = 3,
        crept: int = 8,
        watched: int = 64,
        steady: float = 3.0,
    ) -> None:
        self._share = share
        self._rise = rise
        self._from_start = from_start
        self._reference = reference
        self._patience = patience
        self._crept, self._watched = crept, watched
        self._steady = steady
        self._last = np.zeros(0)
        self._moves = np.zeros(0)
        """Mean distance between the newest ``MOVES`` samples or so."""
        self._sum = np.zeros(0)
        self._count = np.zeros(0)
        self._streak = Streak()
        self._risen = Streak()
        """Since when a share has been past ``rise``, on its way up."""
        self._told: set[int] = set()
        self._samples = 0

    def update(self, reading: Reading) -> list[Finding]:
        share = reading.values.get("module_saturated_share")
        if share is None:
            return []
        known = reading.present["module_saturated_share"] & np.isfinite(share)
        self._samples += bool(known.any())
        past = self._reference_of(np.where(known, share, 0.0), known)
        high = (share >= self._share) & (
            share - past >= np.maximum(self._rise, self._steady * self._moved(share, known))
        )
        high |= (share >= self._from_start) & (past >= self._share)
        count = self._streak.update(reading.step, high, known)
        risen = self._risen.update(reading.step, share - past >= self._rise, known)
        certain = known & (count >= np.where(risen - count >= 2, self._crept, self._patience))
        new = [int(i) for i in np.flatnonzero(certain) if int(i) not in self._told]
        new = [i for i in new if risen[i] - count[i] < 2 or reading.step - self._streak.onset(i) >= self._watched]
        self._told.update(new)
        if not new:
            return []
        module = min(new, key=lambda i: (self._streak.onset(i), i))
        return [self._finding(reading.step, module, float(share[module]), float(past[module]), len(new))]

    def _moved(self, share: np.ndarray, known: np.ndarray) -> np.ndarray:
        """How far each module's share usually goes from one sample to the next."""
        self._last, self._moves = grown(self._last, len(share), np.nan), grown(self._moves, len(share))
        moved = np.abs(share - self._last)
        np.add(self._moves, (moved - self._moves) / MOVES, out=self._moves, where=known & np.isfinite(moved))
        np.copyto(self._last, share, where=known)
        return self._moves

    def _reference_of(self, share: np.ndarray, known: np.ndarray) -> np.ndarray:
        grown = len(share) - len(self._sum)
        self._sum = np.pad(self._sum, (0, grown))
        self._count = np.pad(self._count, (0, grown))
        learning = known & (self._count < self._reference)
        self._sum[learning] += share[learning]
        self._count[learning] += 1
        return self._sum / np.maximum(self._count, 1)

    def _finding(self, step: int, module: int, share: float, past: float, modules: int) -> Finding:
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=self._streak.onset(module),
            step=step,
            value=share,
            threshold=self._share,
            subject=module,
            evidence={
                "reference": past,
                "modules": modules,
                "from_start": past >= self._share,
                "alive_at": self._streak.missed(module),
            },
        )

    def status(self) -> Status:
        if not self._samples:
            return Status("not_checked", "no hidden tanh or sigmoid module was seen; functional ones are not modules")
        if self._told:
            return Status("alarm")
        missing = self._patience - self._samples
        return Status("warming_up", f"{missing} more samples needed") if missing > 0 else Status("ok")
