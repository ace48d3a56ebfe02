"""One step whose loss stands far out of the run's own noise, and which the job survives."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.envelope import Envelope
from torchvitals.detectors.scalars import Floats, Mask, gradient, scalar, subjects_of


class LossSpike:
    """A loss far above all that was seen, back to normal within ``recovery`` steps.

    Noise is measured in decades above the running median of the last 32 losses. A spike must reach ``beyond`` times
    the largest such excess so far: under a heavy (Pareto) tail the largest of n excesses grows like log n, and
    exceeding k times that has probability n^-k, whose sum over a run of any length stays below ``known``^(1-k).
    It must also be ``worse`` times the largest loss ever and come with the largest gradient: a hard sample met
    late in training is a large excess, but no worse than what an untrained model makes of it.

    >>> detector = LossSpike()
    >>> for step in range(80):
    ...     loss = 40.0 if step == 60 else 1.0 + 0.1 * (step % 3)
    ...     for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=loss)):
    ...         print(finding.first_step, finding.step, finding.value)
    60 61 40.0
    """

    kind: ClassVar[str] = "loss_spike"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "gradient_norm", "gradient_norm_unclipped", "skipped_steps")

    def __init__(
        self,
        *,
        known: int = 48,  # losses whose noise has been measured: see the sum above
        beyond: float = 3.0,  # a batch's mean is milder in the bulk than in its tail, so that 2 is too few
        worse: float = 10.0,  # a change of task measured up to 5
        recovery: int = 10,  # longer, and it is an explosion
    ) -> None:
        self.known, self.beyond, self.worse, self.recovery = known, beyond, np.log10(worse), recovery
        self.loss = Envelope()
        self.norm = Envelope()
        self.noise = np.zeros(0)
        """Largest excess over the running median so far, in decades."""
        self.steep = np.zeros(0)
        self.pending = np.zeros((0, 3))
        """Step, loss and reference of a spike that waits for its recovery; step -1 when none."""
        self.negative = np.zeros(0, dtype=bool)
        self.reported = 0

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.noise), subjects_of(reading, self.reads))
        self._grow(subjects)
        loss, present = scalar(reading, "loss", subjects)
        skipped, _ = scalar(reading, "skipped_steps", subjects)
        present &= ~(skipped > 0)
        self.negative |= loss < 0
        finite = present & np.isfinite(loss)
        found = self._recovered(reading.step, loss, finite)
        with np.errstate(divide="ignore", invalid="ignore"):
            height = np.log10(np.abs(loss))
        excess = height - self._middle()
        spike = finite & ~self.negative & (self.loss.count >= self.known) & self._steep(reading, subjects)
        spike &= (excess > self.beyond * self.noise) & (height > self.loss.bound() + self.worse)
        fresh = spike & (self.pending[:, 0] < 0)
        self.pending[fresh] = np.stack([np.full(subjects, reading.step), loss, self.loss.bound()], axis=1)[fresh]
        self.pending[present & ~np.isfinite(loss), 0] = -1
        quiet = finite & ~spike & (self.loss.count >= 8)
        self.noise[quiet] = np.maximum(self.noise[quiet], np.maximum(excess[quiet], 0.0))
        self.loss.add(reading.step, np.abs(loss), finite & ~spike)
        return found

    def status(self) -> Status:
        if not len(self.noise) or not self.loss.count.any():
            return Status("not_checked", "no loss was seen")
        if (self.loss.count < self.known).all():
            return Status("warming_up", f"fewer than {self.known} losses")
        if self.negative.all():
            return Status("not_checked", "the loss crosses zero: it has no scale to stand out from")
        return Status("alarm" if self.reported else "ok")

    def _middle(self) -> Floats:
        """Running median of the log losses; NaN, which exceeds nothing, before there are any."""
        middle = np.full(len(self.noise), np.nan)
        some = self.loss.count > 0
        if some.any():
            middle[some] = np.nanmedian(self.loss.ring[some], axis=1)
        return middle

    def _steep(self, reading: Reading, subjects: int) -> Mask:
        """Where the newest gradient is the largest so far, or none was ever seen."""
        norm, sent = gradient(reading, subjects)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = np.where(np.isfinite(norm), np.log10(np.abs(norm)) - self.norm.bound(), np.inf)
        self.steep = np.where(sent, excess, np.where(self.norm.count > 0, self.steep, np.inf))
        self.norm.add(reading.step, np.abs(norm), sent)
        steep: Mask = self.steep > 0
        return steep

    def _recovered(self, step: int, loss: Floats, finite: Mask) -> list[Finding]:
        waiting = self.pending[:, 0] >= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            back = waiting & finite & (np.log10(np.abs(loss)) <= self.pending[:, 2])
        rows = np.flatnonzero(back)
        found = [self._finding(int(row), step) for row in rows]
        over = waiting & finite & (step - self.pending[:, 0] >= self.recovery)
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
        self.loss.grow(subjects)
        self.norm.grow(subjects)
        new = subjects - len(self.noise)
        if new > 0:
            self.noise = np.concatenate([self.noise, np.zeros(new)])
            self.steep = np.concatenate([self.steep, np.full(new, np.inf)])
            self.pending = np.concatenate([self.pending, np.tile([-1.0, np.nan, np.nan], (new, 1))])
            self.negative = np.concatenate([self.negative, np.zeros(new, dtype=bool)])
