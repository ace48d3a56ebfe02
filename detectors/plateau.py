"""A classifier that answers as if it had never seen the data: the loss stays at chance."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import KEPT, LossPast, past_of
from torchvitals.detectors.rate_past import RatePast, rates_of
from torchvitals.detectors.ring import NOBODY, Rows, in_turn
from torchvitals.detectors.scalars import Mask, grown, losses, rates, shortest, single, subjects_of

SMALL = (3, 5, 6, 7, 8, 9, 10, 11, 12)
"""Numbers of classes whose chance level is told from other losses. Not 2 and 4: an adversarial game in balance
costs its critic ln 2 or ln 4, and preference losses begin at ln 2."""
TOLD = np.isin(np.arange(max(SMALL) + 2), SMALL)
"""The same by number of classes; the last is for all that are more."""


EVERY = 8
"""Steps between two looks at a loss."""
TOGETHER = 64
"""Ranks looked at in the same step; the next ones come a step later, so that the work of thousands is spread out."""


class Plateau:
    """The loss is at -ln(1/C) and does not vary: the outputs do not depend on the inputs.

    Two keys. The median of the last ``window`` losses lies within ``near`` of ln C, and their spread is below
    ``still`` of it: a uniform answer costs ln C on every batch, whatever the labels, whereas a model that knows
    something has easier and harder batches. Beyond 12 classes the levels lie so close that any loss is near one,
    so there only losses above ``untrained`` count, which a trained language model does not show.

    And it must not be *falling*: lower than its second window by ``progress`` standard errors is slow learning, as a
    language model under a long warm-up or a classifier of weak signals shows it.

    Patience is counted in steps at a working learning rate (a tenth of its largest or more), so that warm-up
    is not held against a run. It must never have been ``learnt`` below the level, and must have begun near it (or far
    above, from wild weights): a loss that came down from two levels higher has learnt something.

    >>> detector = Plateau()
    >>> for step in range(400):
    ...     for finding in detector.update(Reading.of(step, loss=2.303 + 0.004 * (step % 3), learning_rate=0.1)):
    ...         print(finding.step, finding.evidence["classes"])
    303 10
    """

    kind: ClassVar[str] = "plateau"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "learning_rate", "skipped_steps")

    def __init__(
        self,
        *,
        patience: int = 300,  # steps; the slowest healthy start (8 layers, SGD) took 150, slow progress shows by 300
        near: float = 0.015,  # ln 9 and ln 10 are 5 % apart
        still: float = 0.02,  # losses of batches that are learnt from vary by 5 % and more
        untrained: float = 5.0,  # nats: 150 equally likely symbols
        progress: float = 2.5,  # standard errors: one look in 160 at a loss that stands still is put off
        learnt: float = 0.05,  # below the level, at any time since
        begun: tuple[float, float] = (1.2, 3.0),  # first loss over the level: fresh nets begin at 1.0 to 1.1
    ) -> None:
        self.patience, self.window, self.near, self.still = patience, KEPT, near, still
        self.untrained, self.learnt, self.begun = untrained, learnt, begun
        self.progress = progress
        self.early = np.zeros((2, 0), dtype=np.float32)
        """Mean and variance of the second window: the first still falls from the initial weights."""
        self.past = LossPast()
        self.idle = np.zeros(0, dtype=np.int32)
        """Steps at less than a tenth of the largest learning rate."""
        self.rates = RatePast()
        self.lowest = np.zeros(0, dtype=np.float32)
        """Lowest median of a window so far."""
        self.fired = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        self._grow(subjects)
        use = losses(reading, subjects).usable
        self.past = past_of(reading, subjects, self.past)
        self.rates = rates_of(reading, subjects, self.rates)
        idle = rates(reading, subjects)[0] < 0.1 * self.rates.highest
        if np.count_nonzero(idle):
            self.idle += use & idle
        due = self._due(self.past.rows)
        if len(due):
            due = due[(self.past.count[due] >= self.window) & ~self.fired[due]]
        return self._judge(reading.step, due) if len(due) else []

    def status(self) -> Status:
        if not self.past.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired.any():
            return Status("alarm")
        working = self.past.count - self.idle
        if (working < self.patience).all():
            return Status("warming_up", f"{int(working.max())} of {self.patience} steps")
        return Status("ok")

    def _due(self, rows: Rows) -> NDArray[np.intp]:
        """Whose losses are to be looked at now."""
        count, subjects = self.past.ring.counted(rows), len(self.fired)
        if isinstance(count, int):
            return in_turn(-count, EVERY, subjects) if count else NOBODY
        ranks = np.arange(subjects)[rows]
        due: NDArray[np.intp] = ranks[(count + ranks // TOGETHER) % EVERY == 0]
        return due

    def _judge(self, step: int, rows: NDArray[np.intp]) -> list[Finding]:
        now, count = self.past.whole(rows), self.past.count[rows]
        second = np.flatnonzero((count >= 2 * self.window) & np.isnan(self.early[0, rows]))
        early = now[:, second].astype(np.float64)
        self.early[:, rows[second]] = single(early.mean(axis=0)), single(early.var(axis=0))
        middle = row_median(now.T)
        self.lowest[rows] = np.fmin(self.lowest[rows], middle)
        classes = np.maximum(2, np.rint(np.exp(np.clip(middle, 0, 14)))).astype(np.int64)
        level = np.log(classes)
        known = TOLD[np.minimum(classes, len(TOLD) - 1)] | (middle >= self.untrained)
        stuck = known & (np.abs(middle - level) <= self.near * level)
        stuck &= (count - self.idle[rows] >= self.patience) & (self.lowest[rows] >= (1 - self.learnt) * level)
        if not np.count_nonzero(stuck):
            return []
        start = self.past.first_loss[rows] / level
        stuck &= ~self._falls(rows)
        stuck &= (start <= self.begun[0]) | (start >= self.begun[1])
        stuck[stuck] = now[:, stuck].std(axis=0, dtype=np.float64) <= self.still * level[stuck]
        self.fired[rows[stuck]] = True
        return [
            self._finding(int(row), step, shortest(value), int(number))
            for row, value, number in zip(rows[stuck], middle[stuck], classes[stuck], strict=True)
        ]

    def _falls(self, rows: NDArray[np.intp]) -> Mask:
        """Whether the newest window lies below the second one by more than their noise."""
        mean, variance = self.early[:, rows]
        now = self.past.whole(rows).astype(np.float64)
        error = np.sqrt((variance + now.var(axis=0)) / self.window)
        falls: Mask = mean - now.mean(axis=0) > self.progress * error
        return falls

    def _finding(self, row: int, step: int, value: float, classes: int) -> Finding:
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(self.past.first_step[row]),
            step=step,
            value=value,
            threshold=float((1 - self.learnt) * np.log(classes)),
            subject=row,
            evidence={
                "classes": classes,
                "chance": float(np.log(classes)),
                "spread": float(self.past.of(row, KEPT).std(dtype=np.float64)),
            },
        )

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.fired):
            return
        self.early = grown(self.early.T, subjects, np.nan).T.copy()
        self.idle, self.lowest = grown(self.idle, subjects), grown(self.lowest, subjects, np.inf)
        self.fired = grown(self.fired, subjects)
