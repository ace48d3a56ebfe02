"""A fresh classifier that after hundreds of large steps still answers worse than a guess."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import LossPast, past_of
from torchvitals.detectors.rate_past import RatePast, rates_of
from torchvitals.detectors.scalars import Mask, grown, losses, scalar, shortest, subjects_of

ADVERSARIAL = (2, 4)
"""Classes whose chance level is also that of a game in balance, whose losses may climb: ln 2 and ln 4."""
MOST = 20.0
"""Nats; no vocabulary is so large."""
TOGETHER = 64
"""Ranks that are judged at the same step; the next as many one step later, to spread the work."""


class WorseThanGuess:
    """The loss began at chance, ln C, and has been above it ever since, at a rate that is large for any optimizer.

    An answer that knows nothing, the same probability for each class, costs ln C. Weights that too large steps throw
    about cost more, without the leaps of an explosion, and stay there. The first loss says C, since fresh nets begin
    within ``near`` of ln C. Of the ``horizon`` losses from there on the first third does not count (overshoots are
    over by then); afterwards no median of a block may come below ``above`` times chance or first loss, and single
    losses below the first must be fewer than ``lucky``: a run that stands still looks so when its first loss is one of
    its lowest.

    >>> detector = WorseThanGuess()
    >>> for step in range(200):
    ...     reading = Reading.of(step, loss=2.3 if step == 0 else 2.5, learning_rate=2.0, batch_items=32)
    ...     for finding in detector.update(reading):
    ...         print(finding.kind, finding.first_step, finding.step, finding.evidence["classes"])
    divergence 1 191 10
    """

    kind: ClassVar[str] = "divergence"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "learning_rate", "batch_items", "skipped_steps")

    def __init__(
        self,
        *,
        horizon: int = 192,  # losses; the slowest healthy start at such rates was at half of its first loss by 100
        block: int = 16,
        near: float = 0.03,  # of ln C: 2.296 to 2.354 were measured for ten classes, ln 10 is 2.303
        above: float = 1.03,  # labels that cannot be learnt cost 1.00 to 1.02
        rate: float = 0.3,  # three times what plain SGD is usually given; contrastive losses climb at first, at 0.03
        lucky: float = 0.1,  # of the losses
        items: int = 8,  # rows in a batch from which the first loss is a fair sample
    ) -> None:
        self.horizon, self.block, self.near, self.above = horizon, block, near, above
        self.rate, self.lucky, self.items = rate, lucky, items
        self.past = LossPast()
        self.lowest = np.zeros(0, dtype=np.float32)
        """Lowest median of a block since the first third."""
        self.below = np.zeros(0, dtype=np.uint8)
        """Single losses below the first since then."""
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
        self.rates = rates_of(reading, subjects, self.rates)
        items, _ = scalar(reading, "batch_items", subjects)
        self.fair |= items >= self.items
        age = self.past.count - np.arange(subjects) // TOGETHER % self.block  # of some ranks the horizon begins later
        self._follow(loss, age, use & (age > self.horizon // 3))
        self.over = bool((age >= self.horizon).all())
        due = use & (age == self.horizon)
        return self._judge(reading.step, np.flatnonzero(due)) if np.count_nonzero(due) else []

    def status(self) -> Status:
        if not self.past.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired:
            return Status("alarm")
        if not self.over:
            return Status("warming_up", f"{int(self.past.count.max())} of {self.horizon} losses seen")
        return Status("ok")

    def _follow(self, loss: NDArray[np.float32], age: NDArray[np.int64], use: Mask) -> None:
        """Keep what the losses after the first third say."""
        self.below += use & (loss < self.past.first_loss)
        ended = np.flatnonzero(use & (age % self.block == 0))
        self.lowest[ended] = np.minimum(self.lowest[ended], row_median(self.past.newest(ended, self.block).T))

    def _judge(self, step: int, rows: NDArray[np.intp]) -> list[Finding]:
        """Tell of those whose losses have stayed above the first, and above chance, at a large rate."""
        start = self.past.first_loss[rows]
        classes = np.rint(np.exp(np.clip(start, 0.0, MOST)))
        chance = np.log(classes)
        fresh = (classes > 1) & ~np.isin(classes, ADVERSARIAL) & (np.abs(start - chance) <= self.near * chance)
        late = self.horizon - self.horizon // 3
        worse = fresh & self.fair[rows] & (self.rates.highest[rows] >= self.rate)
        worse &= self.lowest[rows] >= self.above * np.maximum(start, chance)
        worse &= self.below[rows] <= self.lucky * late
        found = np.flatnonzero(worse)
        self.fired |= bool(len(found))
        return [self._finding(int(rows[place]), step, int(classes[place])) for place in found]

    def _finding(self, row: int, step: int, classes: int) -> Finding:
        chance = float(np.log(classes))
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.past.first_step[row]) + 1,
            step=step,
            value=float(np.median(self.past.of(row, self.block))),
            threshold=self.above * chance,
            subject=row,
            evidence={
                "start": shortest(self.past.first_loss[row]),
                "classes": classes,
                "chance": chance,
                "rate": shortest(self.rates.highest[row]),
            },
        )

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.fair):
            return
        self.over = False
        self.lowest, self.below = grown(self.lowest, subjects, np.inf), grown(self.below, subjects)
        self.fair = grown(self.fair, subjects)
