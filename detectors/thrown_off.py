"""A run that its first updates throw far above its first loss, where it stays."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import LossPast, past_of
from torchvitals.detectors.rate_past import RatePast, rates_of
from torchvitals.detectors.scalars import grown, losses, scalar, shortest, subjects_of

LOW = 1.5
"""Times the first loss: what lies no higher is where it began."""


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
        self.past = LossPast()
        self.since = np.zeros(0, dtype=np.int32)
        """Step after the last loss that was still low; -1 while there is none."""
        self.rates = RatePast()
        self.fair = np.zeros(0, dtype=bool)
        self.over = False
        """Whether all have been judged."""
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        subjects = subjects_of(reading, self.reads)
        if self.over and subjects <= len(self.fair):
            return []
        subjects = max(len(self.fair), subjects)
        self._grow(subjects)
        _, loss, _, use, _ = losses(reading, subjects)
        self.past = past_of(reading, subjects, self.past)
        self.since[use & (self.since < 0)] = reading.step
        self.since[use & (loss <= LOW * self.past.first_loss)] = -1
        self.rates = rates_of(reading, subjects, self.rates)
        items, _ = scalar(reading, "batch_items", subjects)
        self.fair |= items >= self.items
        count = self.past.count
        self.over = bool((count >= self.horizon).all())
        due = use & (count == self.horizon) & self.fair & (self.rates.highest >= self.rate)
        return [self._finding(int(row), reading.step) for row in np.flatnonzero(due) if self._thrown(int(row))]

    def status(self) -> Status:
        if not self.past.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired:
            return Status("alarm")
        if (self.past.count < self.horizon).all():
            return Status("warming_up", f"{int(self.past.count.max())} of {self.horizon} losses seen")
        return Status("ok")

    def _thrown(self, row: int) -> bool:
        losses, quarter = self.past.of(row, self.horizon), self.horizon // 4
        first, before, last = losses[0], np.median(losses[-2 * quarter : -quarter]), np.median(losses[-quarter:])
        high = np.median(losses) >= self.worse * first and losses[quarter:].min() > first
        return bool(first >= self.least and high and last > self.improving * before)

    def _finding(self, row: int, step: int) -> Finding:
        self.fired = True
        losses = self.past.of(row, self.horizon)
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.since[row]) if self.since[row] >= 0 else step,
            step=step,
            value=shortest(np.median(losses)),
            threshold=float(self.worse * losses[0]),
            subject=row,
            evidence={"start": shortest(losses[0]), "rate": shortest(self.rates.highest[row])},
        )

    def _grow(self, subjects: int) -> None:
        if subjects > len(self.fair):
            self.over = False
            self.fair = grown(self.fair, subjects)
            self.since = grown(self.since, subjects, -1)
