"""One step whose loss stands far out of the run's own noise, and which the job survives."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.envelope import Envelope
from torchvitals.detectors.scalars import Floats, Mask, gradient, scalar, subjects_of

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
        self.past = Envelope(floors=(0.1, 0.1, 0.1))
        """Of losses and of two gradient norms."""
        self.noise = np.zeros(0)
        """Largest excess over the running median so far, in decades."""
        self.steep = np.zeros(0)
        self.lower = np.zeros(0)
        """Not above the running median until ``REFRESH`` more losses have come."""
        self.age = 0
        """Updates so far."""
        self.pending = np.zeros((0, 3))
        """Step, loss and reference of a spike that waits for its recovery; step -1 when none."""
        self.negative = np.zeros(0, dtype=bool)
        self.reported = 0

    @np.errstate(invalid="ignore", divide="ignore")  # non-finite values are data here
    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.noise), subjects_of(reading, self.reads))
        self._grow(subjects)
        values, sent = self._series(reading, subjects)
        heights, bound = np.log10(np.abs(values)), self.past.bound()
        loss, present = values[0], sent[0]
        self.negative |= loss < 0
        finite = present & np.isfinite(loss)
        found = self._recovered(reading.step, heights[0], finite)
        excess = self._excess(heights[0])
        steep = self._steep(values[1:], heights[1:] - bound[1:], sent[1:])
        above = heights[0] - bound[0]
        known = np.where(above > self.far, self.few, self.known)
        spike = finite & ~self.negative & (self.past.known[0] >= known) & steep
        spike &= (excess > self.beyond * self.noise) & (above > self.worse)
        if np.count_nonzero(spike):
            fresh = spike & (self.pending[:, 0] < 0)
            self.pending[fresh] = np.stack([np.full(subjects, reading.step), loss, bound[0]], axis=1)[fresh]
        self.pending[present & ~finite, 0] = -1
        sent[0] = finite & ~spike
        np.fmax(self.noise, excess, out=self.noise, where=sent[0] & (self.past.known[0] >= 8))
        self.past.add(reading.step, heights, sent)
        return found

    def status(self) -> Status:
        losses = self.past.known[0]
        if not losses.any():
            return Status("not_checked", "no loss was seen")
        if (losses < self.known).all():
            return Status("warming_up", f"fewer than {self.known} losses")
        if self.negative.all():
            return Status("not_checked", "the loss crosses zero: it has no scale to stand out from")
        return Status("alarm" if self.reported else "ok")

    def _series(self, reading: Reading, subjects: int) -> tuple[Floats, Mask]:
        """Values and presence of the three series; the losses of skipped attempts do not count."""
        loss, present = scalar(reading, "loss", subjects)
        skipped, _ = scalar(reading, "skipped_steps", subjects)
        norm, has_norm = gradient(reading, subjects)
        small, has_small = scalar(reading, "tripwire_norm", subjects)
        return np.array([loss, norm, small]), np.array([present & ~(skipped > 0), has_norm, has_small])

    def _excess(self, height: Floats) -> Floats:
        """Decades above the running median where they may exceed the noise so far; NaN, which exceeds nothing, else."""
        ring = self.past.ring[: len(height)]
        turn = slice(-self.age % REFRESH, len(height), REFRESH)
        if turn.start < len(height):
            place = self.past.lag // 2 - 1 - REFRESH
            full = self.past.known[0, turn] >= self.past.lag
            self.lower[turn] = np.where(full, np.partition(ring[turn], place, axis=1)[:, place], -np.inf)
        self.age += 1
        excess = np.full(len(height), np.nan)
        rows = (height - self.lower > self.noise).nonzero()[0]
        if len(rows):
            excess[rows] = height[rows] - row_median(ring[rows])
        return excess

    def _steep(self, norms: Floats, above: Floats, sent: Mask) -> Mask:
        """Where the newest gradient is the largest so far, or none was ever seen.

        The whole norm is sampled and may miss the one step that counts; the trip-wire's is there at every step.
        """
        excess = np.where(np.isfinite(norms), above, np.inf)
        excess[~sent] = -np.inf
        known = (self.past.known[1] > 0) | (self.past.known[2] > 0)
        held = np.where(known, self.steep, np.inf)
        self.steep = np.where(sent[0] | sent[1], np.maximum(excess[0], excess[1]), held)
        steep: Mask = self.steep > 0
        return steep

    def _recovered(self, step: int, height: Floats, finite: Mask) -> list[Finding]:
        waiting = finite & (self.pending[:, 0] >= 0)
        if not np.count_nonzero(waiting):
            return []
        back = waiting & (height <= self.pending[:, 2])
        found = [self._finding(int(row), step) for row in np.flatnonzero(back)]
        over = waiting & (step - self.pending[:, 0] >= self.recovery)
        self.pending[back | over, 0] = -1
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
        self.past.grow(subjects)
        new = subjects - len(self.noise)
        if new > 0:
            self.noise = np.concatenate([self.noise, np.zeros(new)])
            self.lower = np.concatenate([self.lower, np.full(new, -np.inf)])
            self.steep = np.concatenate([self.steep, np.full(new, np.inf)])
            self.pending = np.concatenate([self.pending, np.tile([-1.0, np.nan, np.nan], (new, 1))])
            self.negative = np.concatenate([self.negative, np.zeros(new, dtype=bool)])
