"""A run that its first updates throw far above its first loss, where it stays."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import scalar, subjects_of

LARGEST = 1e30
"""Losses are cut here: what is made of them must stay finite."""


class ThrownOff:
    """The first updates throw the loss far above where it began, and there it stays.

    Too large a rate of an adaptive optimizer makes no leap of many decades: steps have the size of the rate, and
    the loss settles at a multiple of that of the fresh model. After ``horizon`` losses their median lies
    ``worse`` times above the first, none has been below it since the leap, and the last quarter does not improve.

    Only rates from ``rate`` on and first losses from ``least`` on are judged: the values of a critic grow by
    design, from next to nothing and at small rates. The first loss must be a fair sample (``items`` rows).

    >>> detector = ThrownOff()
    >>> for step in range(80):
    ...     reading = Reading.of(step, loss=4.0 if step == 0 else 25.0, learning_rate=0.5, batch_items=16)
    ...     for finding in detector.update(reading):
    ...         print(finding.kind, finding.first_step, finding.step, finding.value)
    divergence 1 63 25.0
    """

    kind: ClassVar[str] = "divergence"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "learning_rate", "batch_items", "skipped_steps")

    def __init__(
        self,
        *,
        horizon: int = 64,  # losses; healthy overshoots at large rates are over within 20
        worse: float = 4.0,  # times the first loss; a generator that is losing climbs by less in that time
        rate: float = 0.03,  # three times what adaptive optimizers are usually given at most
        least: float = 0.1,  # a loss that starts at 0 has no scale
        items: int = 8,
        improving: float = 0.8,  # last quarter over the one before: it is on its way back
    ) -> None:
        self.horizon, self.worse, self.rate, self.least = horizon, worse, rate, least
        self.items, self.improving = items, improving
        self.losses = np.zeros((0, horizon), dtype=np.float32)
        self.steps = np.zeros((0, horizon), dtype=np.int32)
        self.count = np.zeros(0, dtype=np.int64)
        self.highest_rate = np.zeros(0)
        self.fair = np.zeros(0, dtype=bool)
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        if len(self.count) and (self.count >= self.horizon).all():
            return []
        subjects = max(len(self.count), subjects_of(reading, self.reads))
        self._grow(subjects)
        loss, present = scalar(reading, "loss", subjects)
        rate, _ = scalar(reading, "learning_rate", subjects)
        items, _ = scalar(reading, "batch_items", subjects)
        skipped, _ = scalar(reading, "skipped_steps", subjects)
        use = present & np.isfinite(loss) & ~(skipped > 0) & (self.count < self.horizon)
        rows = np.flatnonzero(use)
        self.fair |= items >= self.items
        self.highest_rate = np.fmax(self.highest_rate, rate)
        self.losses[rows, self.count[rows]] = np.clip(loss[rows], -LARGEST, LARGEST)
        self.steps[rows, self.count[rows]] = reading.step
        self.count[rows] += 1
        return [self._finding(int(row), reading.step) for row in rows if self._thrown(int(row))]

    def status(self) -> Status:
        if not self.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired:
            return Status("alarm")
        if (self.count < self.horizon).all():
            return Status("warming_up", f"{int(self.count.max())} of {self.horizon} losses seen")
        return Status("ok")

    def _thrown(self, row: int) -> bool:
        losses, quarter = self.losses[row], self.horizon // 4
        if self.count[row] < self.horizon or not self.fair[row] or not self.highest_rate[row] >= self.rate:
            return False
        first, before, last = losses[0], np.median(losses[-2 * quarter : -quarter]), np.median(losses[-quarter:])
        high = np.median(losses) >= self.worse * first and losses[quarter:].min() > first
        return bool(first >= self.least and high and last > self.improving * before)

    def _finding(self, row: int, step: int) -> Finding:
        self.fired = True
        losses = self.losses[row]
        low = np.flatnonzero(losses <= 1.5 * losses[0])
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.steps[row, min(low[-1] + 1, self.horizon - 1)]),
            step=step,
            value=float(np.median(losses)),
            threshold=float(self.worse * losses[0]),
            subject=row,
            evidence={"start": float(losses[0]), "rate": float(self.highest_rate[row])},
        )

    def _grow(self, subjects: int) -> None:
        new = subjects - len(self.count)
        if new <= 0:
            return
        zeros = np.zeros(new, dtype=np.int64)
        self.losses = np.concatenate([self.losses, np.full((new, self.horizon), np.nan, dtype=np.float32)])
        self.steps = np.concatenate([self.steps, np.zeros((new, self.horizon), dtype=np.int32)])
        self.count = np.concatenate([self.count, zeros])
        self.highest_rate = np.concatenate([self.highest_rate, zeros])
        self.fair = np.concatenate([self.fair, zeros.astype(bool)])
