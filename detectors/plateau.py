"""A classifier that answers as if it had never seen the data: the loss stays at chance."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import scalar, subjects_of

SMALL = (3, 5, 6, 7, 8, 9, 10, 11, 12)
"""Numbers of classes whose chance level is told from other losses. Not 2 and 4: an adversarial game in balance
costs its critic ln 2 or ln 4, and preference losses begin at ln 2."""


class Plateau:
    """The loss is at -ln(1/C) and does not vary: the outputs do not depend on the inputs.

    Two keys. The median of the last ``window`` losses lies within ``near`` of ln C, and their spread is below
    ``still`` of it: a uniform answer costs ln C on every batch, whatever the labels, whereas a model that knows
    something has easier and harder batches. Beyond 12 classes the levels lie so close that any loss is near one,
    so there only losses above ``untrained`` count, which a trained language model does not show.

    Patience is counted in steps at a working learning rate (a tenth of its largest or more), so that warm-up
    is not held against a run. It must never have been ``learnt`` below the level, and must have begun near it (or far
    above, from wild weights): a loss that came down from two levels higher has learnt something.

    >>> detector = Plateau()
    >>> for step in range(400):
    ...     for finding in detector.update(Reading.of(step, loss=2.303 + 0.004 * (step % 3), learning_rate=0.1)):
    ...         print(finding.step, finding.evidence["classes"])
    199 10
    """

    kind: ClassVar[str] = "plateau"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "learning_rate", "skipped_steps")

    def __init__(
        self,
        *,
        patience: int = 200,  # steps; the slowest healthy start measured (8 layers, plain SGD) took 150
        window: int = 64,
        near: float = 0.015,  # ln 9 and ln 10 are 5 % apart
        still: float = 0.02,  # losses of batches that are learnt from vary by 5 % and more
        untrained: float = 5.0,  # nats: 150 equally likely symbols
        learnt: float = 0.05,  # below the level, at any time since
        begun: tuple[float, float] = (1.2, 3.0),  # first loss over the level: fresh nets begin at 1.0 to 1.1
    ) -> None:
        self.patience, self.window, self.near, self.still = patience, window, near, still
        self.untrained, self.learnt, self.begun = untrained, learnt, begun
        self.ring = np.zeros((0, window))
        self.count = np.zeros(0, dtype=np.int64)
        self.working = np.zeros(0, dtype=np.int64)
        self.rate = np.zeros(0)
        self.lowest = np.zeros(0)
        """Lowest median of a window so far."""
        self.first = np.zeros(0, dtype=np.int64)
        self.start = np.zeros(0)
        self.fired = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        self._grow(subjects)
        loss, present = scalar(reading, "loss", subjects)
        rate, sent = scalar(reading, "learning_rate", subjects)
        skipped, _ = scalar(reading, "skipped_steps", subjects)
        use = present & np.isfinite(loss) & ~(skipped > 0)
        self.rate = np.where(sent, np.fmax(self.rate, rate), self.rate)
        self.working += use & (~sent | (rate >= 0.1 * self.rate))
        self.first = np.where(use & (self.count == 0), reading.step, self.first)
        self.start = np.where(use & (self.count == 0), loss, self.start)
        rows = np.flatnonzero(use)
        self.ring[rows, self.count[rows] % self.window] = loss[rows]
        self.count[rows] += 1
        due = np.flatnonzero(use & (self.count % 8 == 0) & (self.count >= self.window) & ~self.fired)
        return self._judge(reading.step, due) if len(due) else []

    def status(self) -> Status:
        if not self.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired.any():
            return Status("alarm")
        if (self.working < self.patience).all():
            return Status("warming_up", f"{int(self.working.max())} of {self.patience} steps")
        return Status("ok")

    def _judge(self, step: int, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[Finding]:
        middle = np.median(self.ring[rows], axis=1)
        spread = self.ring[rows].std(axis=1)
        self.lowest[rows] = np.fmin(self.lowest[rows], middle)
        classes = np.maximum(2, np.rint(np.exp(np.clip(middle, 0, 14)))).astype(np.int64)
        level = np.log(classes)
        known = np.isin(classes, SMALL) | (middle >= self.untrained)
        stuck = known & (np.abs(middle - level) <= self.near * level) & (spread <= self.still * level)
        stuck &= (self.working[rows] >= self.patience) & (self.lowest[rows] >= (1 - self.learnt) * level)
        start = self.start[rows] / level
        stuck &= (start <= self.begun[0]) | (start >= self.begun[1])
        self.fired[rows[stuck]] = True
        return [
            self._finding(int(row), step, float(value), int(number))
            for row, value, number in zip(rows[stuck], middle[stuck], classes[stuck], strict=True)
        ]

    def _finding(self, row: int, step: int, value: float, classes: int) -> Finding:
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(self.first[row]),
            step=step,
            value=value,
            threshold=float((1 - self.learnt) * np.log(classes)),
            subject=row,
            evidence={"classes": classes, "chance": float(np.log(classes)), "spread": float(self.ring[row].std())},
        )

    def _grow(self, subjects: int) -> None:
        new = subjects - len(self.fired)
        if new <= 0:
            return
        zeros = np.zeros(new, dtype=np.int64)
        self.ring = np.concatenate([self.ring, np.full((new, self.window), np.nan)])
        self.count, self.working = np.concatenate([self.count, zeros]), np.concatenate([self.working, zeros])
        self.first, self.start = np.concatenate([self.first, zeros]), np.concatenate([self.start, np.zeros(new)])
        self.rate = np.concatenate([self.rate, np.zeros(new)])
        self.lowest = np.concatenate([self.lowest, np.full(new, np.inf)])
        self.fired = np.concatenate([self.fired, zeros.astype(bool)])
