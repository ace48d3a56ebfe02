"""One step whose loss stands far out of the run's own noise, and which the job survives."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.envelope import Envelope, Steepness, steepness_of
from torchvitals.detectors.loss_past import LAG, LossPast, past_of
from torchvitals.detectors.scalars import (
    LOSS,
    Floats,
    Mask,
    decades,
    grown,
    losses,
    magnitudes,
    scalar,
    shortest,
    subjects_of,
)

REFRESH = 8
"""Losses that move the median of 32 by no more than so many places down."""
ROUNDING = 0.002
"""Decades by which a loss may be remembered below itself: short_floats.py."""


class LossSpike:
    """A loss far above all that was seen, back to normal within ``recovery`` steps.

    Noise is measured in decades above the running median of the last 32 losses. A spike must reach ``beyond`` times
    the largest such excess so far: under a heavy (Pareto) tail the largest of n excesses grows like log n, and
    exceeding k times that has probability n^-k, whose sum over a run of any length stays below ``known``^(1-k).
    It must also be ``worse`` times the largest loss ever and come with the largest gradient: a hard sample met
    late in training is a large excess, but no worse than what an untrained model makes of it. A loss that is ``far``
    beyond needs fewer losses before it. Where the inputs of these steps are ``outlying`` times larger than any before,
    the excess need only be the largest: a net that is nearly always right has losses as far apart as that by itself.

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
        "input_absmax",
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
        outlying: float = 30.0,  # a hundred times what standardised inputs vary by: another unit, pixels not scaled
    ) -> None:
        self.known, self.beyond, self.worse, self.recovery = known, beyond, np.log10(worse), recovery
        self.few, self.far, self.outlying = few, np.log10(far), np.log10(outlying)
        self.past = LossPast()
        self.envelope = Envelope()
        self.gradients = Steepness()
        self.noise = np.zeros(0, dtype=np.float16)
        """Largest excess over the running median so far, in decades."""
        self.lower = np.zeros(0, dtype=np.float16)
        """Not above the running median until ``REFRESH`` more losses have come."""
        self.inputs = np.zeros(0, dtype=np.float16)
        """Height of the largest input so far, in how many looks at them, and when one was out of all proportion: of
        ranks up to the last that had one."""
        self.looks = np.zeros(0, dtype=np.int8)
        self.outlier = np.full(0, -1, dtype=np.int32)
        self.age = 0
        """Updates so far."""
        self.pending: dict[int, tuple[int, float, float]] = {}
        """Rank → step, loss and reference of a spike that waits for its recovery."""
        self.spikes: set[tuple[int, int]] = set()
        """Rank and number of the losses that are spikes and have not settled: they are no reference."""
        self.negative = np.zeros(0, dtype=bool)
        self.reported = 0

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.noise), subjects_of(reading, self.reads))
        self._grow(subjects)
        size = magnitudes(reading, subjects)
        past = self.past = past_of(reading, subjects, self.past)
        height, sent, finite = size.heights[LOSS], size.sent[LOSS], size.usable[LOSS]
        if (negative := losses(reading, subjects).negative) is not None:
            self.negative |= negative
        self.gradients = steepness_of(reading, size, self.gradients)
        if "input_absmax" in reading.values:
            self._look_at_inputs(reading, subjects)
        found = self._recovered(reading.step, height, finite) if self.pending else []
        unusual = finite & (height - self.lower > self.noise)
        if np.count_nonzero(unusual):
            self._spikes(reading, height, unusual)
        for row in [row for row in self.pending if sent[row] and not finite[row]]:
            del self.pending[row]
        self.envelope.add(past, settled=self._settled() if self.spikes else None)
        self._refresh()
        return found

    def status(self) -> Status:
        seen = self.past.count
        if not seen.any():
            return Status("not_checked", "no loss was seen")
        if (seen < self.known).all():
            return Status("warming_up", f"fewer than {self.known} losses")
        if self.negative.all():
            return Status("not_checked", "the loss crosses zero: it has no scale to stand out from")
        return Status("alarm" if self.reported else "ok")

    def _refresh(self) -> None:
        """Measure what the running median cannot be below, of an eighth of the subjects."""
        self.age += 1
        turn = slice(-self.age % REFRESH, len(self.lower), REFRESH)
        if turn.start < len(self.lower):
            place = LAG // 2 - 1 - REFRESH
            newest = np.abs(self.past.newest(turn, LAG))
            full = ~np.isnan(newest[0])
            self.lower[turn] = np.where(full, decades(np.sort(newest, axis=0)[place]), -np.inf)

    def _look_at_inputs(self, reading: Reading, subjects: int) -> None:
        largest, sent = scalar(reading, "input_absmax", subjects)
        known = sent & np.isfinite(largest)
        inputs = decades(largest).astype(np.float16)
        leapt = known & (self.looks >= self.few) & (inputs - self.inputs > self.outlying)
        if np.count_nonzero(leapt):
            self.outlier = grown(self.outlier, subjects, -1)
            self.outlier[leapt] = reading.step
        np.copyto(self.inputs, np.fmax(self.inputs, inputs), where=known)
        self.looks += known & (self.looks < self.few)

    def _spikes(self, reading: Reading, height: Floats, unusual: Mask) -> None:
        """Note where the loss stands out; what does not is noise, and its largest so far is kept."""
        rows = unusual.nonzero()[0]
        loss, known = losses(reading, len(height)).values[rows], self.past.count[rows] - 1
        excess = height[rows] - decades(row_median(np.abs(self.past.newest(rows, LAG, skip=1)).T))
        above = height[rows] - self.envelope.bound[rows]
        needed = np.where(above > self.far, self.few, self.known)
        spike = ~self.negative[rows] & (known >= needed) & ~(self.gradients.decades[rows] <= 0)
        outlier = grown(self.outlier, len(height), -1)[rows]
        outlying = (outlier >= 0) & (reading.step - outlier < self.recovery)
        beyond = np.where(outlying, 1.0, self.beyond) * self.noise[rows]
        spike &= (excess > beyond) & (above > self.worse)
        for place in spike.nonzero()[0].tolist():
            row = int(rows[place])
            self.spikes.add((row, int(known[place])))
            self.pending.setdefault(row, (reading.step, float(loss[place]), float(self.envelope.bound[row])))
        noise = ~spike & (known >= self.few)
        self.noise[rows[noise]] = np.fmax(self.noise[rows[noise]], excess[noise])

    def _settled(self) -> NDArray[np.float32]:
        """Heights of the losses that have just settled, without spikes."""
        settled, count = self.past.leaving().copy(), self.past.count
        places = np.arange(len(count))[self.past.rows]
        for row, number in list(self.spikes):
            if count[row] > number + LAG:
                self.spikes.remove((row, number))
                settled[places == row] = np.nan
        return settled

    def _recovered(self, step: int, height: Floats, finite: Mask) -> list[Finding]:
        found = []
        for row in sorted(row for row in self.pending if finite[row]):
            began, _, reference = self.pending[row]
            back = bool(height[row] <= reference + ROUNDING)
            if back:
                found.append(self._finding(row, step))
            if back or step - began >= self.recovery:
                del self.pending[row]
        self.reported += len(found)
        return found

    def _finding(self, row: int, step: int) -> Finding:
        began, value, reference = self.pending[row]
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=began,
            step=step,
            value=value,
            threshold=float(10 ** (reference + self.worse)),
            subject=row,
            evidence={"largest_before": float(10**reference), "noise_decades": shortest(self.noise[row])},
        )

    def _grow(self, subjects: int) -> None:
        new = subjects - len(self.noise)
        if new <= 0:
            return
        self.envelope.grow(subjects)
        self.noise, self.negative = grown(self.noise, subjects), grown(self.negative, subjects)
        self.inputs, self.looks = grown(self.inputs, subjects, -np.inf), grown(self.looks, subjects)
        self.lower = grown(self.lower, subjects, -np.inf)
