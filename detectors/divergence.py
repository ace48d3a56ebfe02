"""What had been learnt is lost and stays lost; and gradients that are never cleared, which leads there."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import LossPast, past_of
from torchvitals.detectors.rate_past import RatePast, rates_of
from torchvitals.detectors.ring import NOBODY, Rows, in_turn
from torchvitals.detectors.scalars import ZERO, Floats, Mask, grown, losses, rates, scalar, shortest, subjects_of

TOGETHER = 64
"""Ranks whose blocks end at the same step."""


class Divergence:
    """The loss turns round and does not come back, without the leaps of an explosion.

    Medians of ``block`` steps are compared with the start (the first block) and the best block. The run
    has diverged when ``patience`` blocks in a row do not improve and lie

    - at ``worse`` times the start, at once, in a run that had come down to ``learnt`` of it: a harder task or a
      warm restart is learnt again within that time, and values that grow by design grow slowly; or
    - above the middle between best and start while the learning rate is ``rate_jump`` times beyond what the
      run had learnt with.

    Not improving is: the last block is no better than ``improving`` times the first bad one; at such a rate also that
    for ``patience`` blocks none was below ``lower`` times the lowest of them. An overshoot after which the loss comes
    to rest at chance is better than it was at its height, and stays there. So is one that has not come back in ``back``
    blocks from ``worse`` times the start, or from the start where the rate has leapt by ``wild_jump``.

    A loss that has been negative has no start to return to and is left alone. Zeros before any other value are no start
    either: the weight of a discriminator's loss is zero until the codec it judges can do something.

    >>> detector = Divergence()
    >>> for step in range(300):
    ...     loss = 2.0 * 0.97 ** min(step, 100) if step < 150 else 7.0
    ...     for finding in detector.update(Reading.of(step, loss=loss)):
    ...         print(finding.first_step, finding.step, round(finding.value, 2))
    150 191 7.0
    """

    kind: ClassVar[str] = "divergence"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "learning_rate", "skipped_steps")

    def __init__(
        self,
        *,
        block: int = 16,  # medians of 16 steps: one bad batch does not move them
        patience: int = 3,
        worse: float = 3.0,  # of the start: curricula and bootstrapped values measured rise to twice theirs
        learnt: float = 0.5,  # of the start; a loss that never fell by half has nothing to lose
        turn: float = 2.0,  # of the last good block and of the highest: what grows by design grows slowly
        rate_jump: float = 3.0,
        wild_jump: float = 30.0,  # a restart leaps to rates that were learnt with, and a warm-up does not leap
        settled: float = 0.7,  # of the start: less has not been learnt surely enough to see that it is lost
        wild_settled: float = 0.9,  # the same after a wild jump, which says by itself what the loss turned at
        improving: float = 0.8,  # the last block against the first: it is being learnt again
        back: int = 6,  # blocks: six of 16 steps are what a small net takes to learn it all anew
        lower: float = 0.95,  # of the lowest bad block; none in `patience` blocks: it has come to rest up there
    ) -> None:
        self.block, self.patience, self.worse, self.learnt = block, patience, worse, learnt
        self.turn, self.rate_jump, self.wild_jump = turn, rate_jump, wild_jump
        self.improving, self.back, self.lower = improving, back, lower
        self.settled, self.wild_settled = settled, wild_settled
        self.past = LossPast()
        self.start = np.zeros(0, dtype=np.float32)
        self.best = np.zeros(0, dtype=np.float32)
        self.good = np.zeros(0, dtype=np.float32)
        """Median of the last block that was not bad."""
        self.highest = np.zeros(0, dtype=np.float32)
        """Largest of them: in a long run of wide noise some block lies far above the first."""
        self.rate = np.zeros(0, dtype=np.float32)
        """Largest learning rate of the blocks that were not bad."""
        self.held_rate = np.zeros(0, dtype=np.float32)
        """That of the last of them: a jump may be in its last steps, and is not learnt with before the next is good."""
        self.newest_rate = np.zeros(0, dtype=np.float32)
        """Largest of the block in progress."""
        self.rates = RatePast()
        self.limit = np.zeros(0, dtype=np.float32)
        """Above it a block is bad."""
        self.bad = np.zeros(0, dtype=np.uint8)
        """Bad blocks in a row, as far as they are counted."""
        self.alarming = False
        """Whether anybody has one."""
        self.entry = np.zeros(0, dtype=np.float32)
        """Median of the first bad block in a row; this and what follows while anybody has one."""
        self.low = np.zeros(0, dtype=np.float32)
        """Lowest of the bad blocks in a row, and how many there have been since."""
        self.resting = np.zeros(0, dtype=np.int32)
        self.since = np.zeros(0, dtype=np.int32)
        """First step after the last loss that was still low."""
        self.negative = np.zeros(0, dtype=bool)
        self.fired = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        self._grow(subjects)
        _, loss, _, use, negative = losses(reading, subjects)
        self.past = past_of(reading, subjects, self.past)
        self.rates = rates_of(reading, subjects, self.rates)
        rate = rates(reading, subjects)[0]
        changed = rate > self.newest_rate
        if negative is not None:
            changed |= negative > self.negative
            self.negative |= negative
        if np.count_nonzero(changed):
            np.fmax(self.newest_rate, rate, out=self.newest_rate)
            self._limit(changed.nonzero()[0])
        low = use & (loss <= self.limit)
        if self.alarming:
            low &= self.bad == 0
        self.since[low] = reading.step + 1
        full = self._full(self.past.rows)
        return self._judge(reading.step, full) if len(full) else []

    def status(self) -> Status:
        if not self.past.known.any():
            return Status("not_checked", "no loss was seen")
        if self.negative.all():
            return Status("not_checked", "the loss goes below zero: it has no start to return to")
        if (self.past.known < 2 * self.block).all():
            return Status("warming_up", f"fewer than {2 * self.block} losses")
        return Status("alarm" if self.fired.any() else "ok")

    def _full(self, rows: Rows) -> NDArray[np.intp]:
        """Those whose block is complete with this step; of many ranks some later than others, to spread the work."""
        count, ranks = self.past.counted(rows), len(self.fired)
        if isinstance(count, int):
            if count < self.block:
                return NOBODY
            places = in_turn(count, self.block, ranks)
        else:
            places = np.arange(ranks)[rows]
            places = places[(count >= self.block) & ((count - places // TOGETHER) % self.block == 0)]
        complete: NDArray[np.intp] = places[~self.fired[places]]
        return complete

    def _limit(self, rows: NDArray[np.intp]) -> None:
        """Work out theirs anew; infinite while there is nothing to lose."""
        best, start, rate = self.best[rows], self.start[rows], self.rate[rows]
        beyond = self.newest_rate[rows] > self.rate_jump * rate
        wild = self.newest_rate[rows] > self.wild_jump * rate
        settled = np.where(wild, self.wild_settled, self.settled)
        middle = np.where(best <= settled * start, (best + start) / 2, np.inf)
        level = np.maximum(self.worse * start, self.turn * self.highest[rows])
        lost = np.where(best <= self.learnt * start, level, np.inf)
        limit = np.where(beyond & (rate > 0), np.minimum(middle, lost), lost)
        self.limit[rows] = np.where(self.negative[rows], np.inf, limit)

    def _judge(self, step: int, rows: NDArray[np.intp]) -> list[Finding]:
        middle = row_median(self.past.newest(rows, self.block).T)
        limit = self.limit[rows]
        bad = (middle > limit) & ((self.bad[rows] > 0) | (middle > self.turn * self.good[rows]))
        certain = np.zeros(len(rows), dtype=bool)
        if self.alarming or np.count_nonzero(bad):
            certain = self._worsened(rows, middle, bad)
        good = rows[~bad]
        self.good[good] = middle[~bad]
        self.highest[good] = np.fmax(self.highest[good], middle[~bad])
        self.best[good] = np.minimum(self.best[good], middle[~bad])
        self.start[good] = np.where(np.isnan(self.start[good]), middle[~bad], self.start[good])
        self.rate[good] = np.maximum(self.rate[good], self.held_rate[good])
        self.held_rate[good] = self.newest_rate[good]
        self.newest_rate[rows] = np.nan_to_num(self.rates.newest[rows])
        self._limit(rows)
        return [
            self._finding(int(row), step, shortest(value), shortest(level))
            for row, value, level in zip(rows[certain], middle[certain], limit[certain], strict=True)
        ]

    def _worsened(self, rows: NDArray[np.intp], middle: Floats, bad: Mask) -> Mask:
        """Follow the bad blocks in a row; where they are more than an overshoot."""
        subjects = len(self.fired)
        self.entry, self.low = grown(self.entry, subjects), grown(self.low, subjects)
        self.resting = grown(self.resting, subjects)
        self.entry[rows] = np.where(bad & (self.bad[rows] == 0), middle, self.entry[rows])
        self.bad[rows] = np.where(bad, np.minimum(self.bad[rows], self.back) + 1, 0)
        self.alarming = bool(self.bad.any())
        fell = (self.bad[rows] <= 1) | (middle < self.lower * self.low[rows])
        self.low[rows] = np.where(fell, middle, self.low[rows])
        self.resting[rows] = np.where(fell, 0, self.resting[rows] + 1)
        beyond = self.newest_rate[rows] > self.rate_jump * self.rate[rows]
        wild = self.newest_rate[rows] > self.wild_jump * self.rate[rows]
        leapt = self.entry[rows] > np.where(wild, 1.0, self.worse) * self.start[rows]
        leapt &= self.bad[rows] >= self.back
        rests = beyond & (leapt | (self.resting[rows] >= self.patience))
        stays = rests | (middle > self.improving * self.entry[rows])
        certain: Mask = (self.bad[rows] >= self.patience) & stays
        self.fired[rows[certain]] = True
        if not self.alarming:
            self.entry, self.low, self.resting = self.entry[:0].copy(), self.low[:0].copy(), self.resting[:0].copy()
        return certain

    def _finding(self, row: int, step: int, value: float, limit: float) -> Finding:
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.since[row]),
            step=step,
            value=value,
            threshold=limit,
            subject=row,
            evidence={
                "start": shortest(self.start[row]),
                "best": shortest(self.best[row]),
                "rate": shortest(self.rate[row]),
            },
        )

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.fired):
            return
        self.bad, self.since = grown(self.bad, subjects), grown(self.since, subjects)
        self.start, self.best = grown(self.start, subjects, np.nan), grown(self.best, subjects, np.inf)
        self.good, self.highest = grown(self.good, subjects), grown(self.highest, subjects)
        self.rate, self.newest_rate = grown(self.rate, subjects), grown(self.newest_rate, subjects)
        self.held_rate, self.negative = grown(self.held_rate, subjects), grown(self.negative, subjects)
        self.fired = grown(self.fired, subjects)
        self.limit = grown(self.limit, subjects, np.inf)


class UnclearedGradients:
    """Steps that apply the sum of all gradients so far, because nothing clears them.

    A relation, not a statistic: every backward pass since the last step should begin from cleared gradients.
    Accumulating over micro-batches is one step's business and clears all the same. It holds from the first
    step of the row on, long before the loss shows it.

    >>> detector = UnclearedGradients()
    >>> for step in range(20):
    ...     for finding in detector.update(Reading.of(step, gradients_reset=0, gradient_norm=1)):
    ...         print(finding.kind, finding.first_step, finding.step, finding.evidence["signal"])
    divergence 0 7 gradients_reset
    """

    kind: ClassVar[str] = "divergence"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("gradients_reset", "tripwire_norm", "skipped_steps")

    def __init__(self, *, patience: int = 8) -> None:  # steps in a row; clearing every few steps is a style
        self.patience = patience
        self.row = np.zeros(0, dtype=np.int32)
        """Steps in a row without, and the first of them; once anybody's has begun."""
        self.since = np.zeros(0, dtype=np.int32)
        self.clear = True
        """Whether nobody's row goes on."""
        self.seen = False
        self.fired = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads[:1]))
        if subjects > len(self.fired):
            self.fired = grown(self.fired, subjects)
        reset, told = scalar(reading, "gradients_reset", subjects)
        uncleared = told & (reset == ZERO)
        if not np.count_nonzero(uncleared) and self.clear and self.seen:
            return []  # of those who say that they have cleared theirs no row goes on
        norm, has_norm = scalar(reading, "tripwire_norm", subjects)
        told = told & ~(has_norm & (norm == 0))  # without a gradient of their own they say nothing
        self.seen = self.seen or bool(told.any())
        uncleared &= told
        if self.clear and not np.count_nonzero(uncleared):
            return []
        self.row, self.since = grown(self.row, subjects), grown(self.since, subjects)
        self.row[told & ~uncleared] = 0
        self.clear = not np.count_nonzero(uncleared) and not self.row.any()
        if not np.count_nonzero(uncleared):
            return []
        self.since[uncleared & (self.row == 0)] = reading.step
        self.row[uncleared] += 1
        certain = (self.row >= self.patience) & ~self.fired
        self.fired |= certain
        return [self._finding(int(row), reading.step) for row in np.flatnonzero(certain)]

    def status(self) -> Status:
        if not self.seen:
            return Status("not_checked", "it was not seen whether gradients are cleared")
        return Status("alarm" if self.fired.any() else "ok")

    def _finding(self, row: int, step: int) -> Finding:
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=max(0, int(self.since[row]) - 1) if self.since[row] == 1 else int(self.since[row]),
            step=step,
            value=float(self.row[row]),
            threshold=float(self.patience),
            subject=row,
            evidence={"signal": "gradients_reset", "steps_uncleared": int(self.row[row])},
        )
