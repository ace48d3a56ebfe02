"""One step whose loss stands far out of the run's own noise, and which the job survives."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.envelope import Envelope, Steepness
from torchvitals.detectors.scalars import (
    LOSS,
    Floats,
    Mask,
    grown,
    losses,
    magnitudes,
    subjects_of,
)

REFRESH = 8
"""Losses that move the median of 32 by no more than so many places down."""


class LossSpike:
    """A loss far above all that was seen, back to normal within ``recovery`` steps.

    Noise is measured in decades above the running median of the last 32 losses. A spike must reach ``beyond`` times
    the largest such excess so far: under a heavy (Pareto) tail the largest of n excesses grows like log n, and
    exceeding k times that has probability n^-k, whose sum over a run of any length stays below ``known``^(1-k).
    It must also be ``worse`` times the largest loss ever and come with the largest gradient: a hard sample met
    late in training is a large excess, but no worse than what an untrained model makes of it. A loss that is ``far``
    beyond needs fewer losses before it.

    >>> detector = LossSpike()
    >>> for step in range(80):
    ...     loss = 40.0 if step == 60 else 1.0 + 0.1 * (step % 3)
    ...     for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=loss)):
    ...         print(finding.first_step, finding.step, finding.value)
    60 61 40.0
    """

    kind: ClassVar[str] = "loss_spike"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (
        "loss",
        "gradient_norm",
        "gradient_norm_unclipped",
        "tripwire_norm",
        "skipped_steps",
    )

    def __init__(
        self,
        *,
        known: int = 48,  # losses whose noise has been measured: see the sum above
        beyond: float = 3.0,  # a batch's mean is milder in the bulk than in its tail, so that 2 is too few
        few: int = 8,  # losses before one that is `far` beyond all of them
        far: float = 1e5,  # the largest of eight squared normal numbers is exceeded a hundred times, not so often
        worse: float = 10.0,  # a change of task measured up to 5
        recovery: int = 10,  # longer, and it is an explosion
    ) -> None:
        self.known, self.beyond, self.worse, self.recovery = known, beyond, np.log10(worse), recovery
        self.few, self.far = few, np.log10(far)
        self.past = Envelope()
        """Of losses."""
        self.gradients = Steepness(np.inf)
        self.noise = np.zeros(0)
        """Largest excess over the running median so far, in decades."""
        self.lower = np.zeros(0)
        """Not above the running median until ``REFRESH`` more losses have come."""
        self.age = 0
        """Updates so far."""
        self.pending = np.zeros((0, 3))
        """Step, loss and reference of a spike that waits for its recovery; step -1 when none."""
        self.waiting = False
        """Whether there is one."""
        self.negative = np.zeros(0, dtype=bool)
        self.reported = 0

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.noise), subjects_of(reading, self.reads))
        self._grow(subjects)
        size = magnitudes(reading, subjects)
        height, sent, finite = size.heights[LOSS], size.sent[LOSS], size.usable[LOSS]
        if (negative := losses(reading, subjects).negative) is not None:
            self.negative |= negative
        self.gradients.take(reading.step, size)
        found = self._recovered(reading.step, height, finite) if self.waiting else []
        self._refresh()
        unusual = height - self.lower > self.noise
        if np.count_nonzero(unusual):
            finite = finite & ~self._spikes(reading, height, finite, unusual)
        if self.waiting:
            self.pending[sent & ~size.usable[LOSS], 0] = -1
        self.past.add(reading.step, height, finite)
        return found

    def status(self) -> Status:
        seen = self.past.known
        if not seen.any():
            return Status("not_checked", "no loss was seen")
        if (seen < self.known).all():
            return Status("warming_up", f"fewer than {self.known} losses")
        if self.negative.all():
            return Status("not_checked", "the loss crosses zero: it has no scale to stand out from")
        return Status("alarm" if self.reported else "ok")

    def _refresh(self) -> None:
        """Measure what the running median cannot be below, of an eighth of the subjects."""
        turn = slice(-self.age % REFRESH, len(self.lower), REFRESH)
        self.age += 1
        if turn.start < len(self.lower):
            place = self.past.lag // 2 - 1 - REFRESH
            full = self.past.known[turn] >= self.past.lag
            ring = self.past.ring.values[:, turn]
            self.lower[turn] = np.where(full, np.partition(ring, place, axis=0)[place], -np.inf)

    def _spikes(self, reading: Reading, height: Floats, finite: Mask, unusual: Mask) -> Mask:
        """Where the loss stands out; what does not is noise, and its largest so far is kept."""
        loss, known = losses(reading, len(height)).values, self.past.known
        excess = np.full(len(height), np.nan)  # exceeds nothing
        rows = unusual.nonzero()[0]
        excess[rows] = height[rows] - row_median(self.past.ring.values[:, rows].T)
        above = height - self.past.bound
        needed = np.where(above > self.far, self.few, self.known)
        spike: Mask = finite & ~self.negative & (known >= needed) & (self.gradients.decades > 0)
        spike &= (excess > self.beyond * self.noise) & (above > self.worse)
        fresh = spike & (self.pending[:, 0] < 0)
        if np.count_nonzero(fresh):
            self.waiting = True
            state = np.stack([np.full(len(height), reading.step), loss, self.past.bound], axis=1)
            self.pending[fresh] = state[fresh]
        np.fmax(self.noise, excess, out=self.noise, where=finite & ~spike & (known >= 8))
        return spike

    def _recovered(self, step: int, height: Floats, finite: Mask) -> list[Finding]:
        waiting = finite & (self.pending[:, 0] >= 0)
        back = waiting & (height <= self.pending[:, 2])
        found = [self._finding(int(row), step) for row in np.flatnonzero(back)]
        over = waiting & (step - self.pending[:, 0] >= self.recovery)
        self.pending[back | over, 0] = -1
        self.waiting = bool((self.pending[:, 0] >= 0).any())
        self.reported += len(found)
        return found

    def _finding(self, row: int, step: int) -> Finding:
        began, value, reference = self.pending[row]
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(began),
            step=step,
            value=float(value),
            threshold=float(10 ** (reference + self.worse)),
            subject=row,
            evidence={"largest_before": float(10**reference), "noise_decades": float(self.noise[row])},
        )

    def _grow(self, subjects: int) -> None:
        new = subjects - len(self.noise)
        if new <= 0:
            return
        for envelope in (self.past, self.gradients):
            envelope.grow(subjects)
        self.noise, self.negative = grown(self.noise, subjects), grown(self.negative, subjects)
        self.lower = grown(self.lower, subjects, -np.inf)
        self.pending = np.concatenate([self.pending, np.tile([-1.0, np.nan, np.nan], (new, 1))])
