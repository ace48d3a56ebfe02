"""Slowdown: steps take longer than they did, and stay so."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.allowance import Allowance, Tail
from torchvitals.detectors.batch_sizes import BatchSizes
from torchvitals.detectors.block_statistics import Floats, Mask, row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.pace import PATIENCE, UNHINDERED, Pace
from torchvitals.detectors.scalars import ZERO, grown, scalar
from torchvitals.detectors.surprise import leapt, surprise
from torchvitals.detectors.usual_levels import UsualLevels

Rows = NDArray[np.intp]
REFERENCE = 40
"""Blocks of the past that are remembered."""
LONGEST = np.array(6e4)
"""Seconds; more is a broken number, and float16 ends there. It is exact to 0.05 %, where 2.5 times is slow."""
MOST_BLOCKS = 250
"""Slow blocks in a row that are counted."""
EVERY = 2
"""Of so many steps one is looked at: the median of ten says as much as that of twenty for half of the room."""
NEAR = 16
"""Of which the newest are the level to compare with: machines change over hours."""


class Slowdown:
    """The median step of each of the newest ``blocks`` blocks is far above the blocks before, and not by chance.

    Medians do not see evaluations and checkpoints. Two keys. *Effect*: the median lies above ``factor`` times the
    usual one *and* above ``spread`` times the slowest block so far, so that a job with two kinds of steps is not slow;
    it is asked for so much on purpose, as other jobs on the machine make honest steps twice as long for minutes.
    Where more than ``contended`` tasks want each core, steps of 6 ms were seen to take 300 ms, which says nothing about
    the job: there its own forward and backward passes, which do the same work as ever, are the clock by which a step is
    measured (:mod:`~torchvitals.detectors.pace`); where they were not timed, such blocks are passed over.
    *Significance*: after such a past, blocks like these come less often than the allowance lets them
    (:mod:`~torchvitals.detectors.allowance`). *Continuity*: ``lasting_seconds``. Passes that take what they took vouch
    for the machine, as no load average does, which is a minute late: then less is asked for.

    A batch of another size is another kind of step: the reference begins anew.

    Args:
        block_steps: steps in a block; evaluations every few steps fall below its median.
        warm_up: steps before the first block: compilation, autotuning and caches.
        least_blocks: blocks of reference.
        blocks: consecutive slow blocks that make it certain.
        factor: over the median of the reference.
        spread: over its slowest block.
        leap: over its slowest block, in each of the newest: that is no chance, though a short past cannot prove it. A
            job of 440 steps, 6 ms each, took 83 from its middle on; its ten blocks, uneven by a quarter, gave 1 in
            26,000 where the allowance asks for 1 in 2.6 million, and with memory in them they gave nothing.
        even: slowest over fastest of the newest ``NEAR`` blocks of such a past; one that wanders further may wander on.
        vouched_blocks: consecutive slow blocks, of a job whose passes vouch for the machine,
        vouched_leap: and the leap that is enough then: a batch that took 6 ms to collate in place of 0.2 made steps of
            2.5 to 4.3 ms take 9, which after 19 blocks with memory no test could tell from chance.
        vouched_seconds: and for how long; no neighbour has to go away first, but a disk may be busy.
        least_seconds: a step must take so much longer at least; below, timers and schedulers speak.
        lasting_seconds: and for so long, by the step times themselves: a neighbour's burst is over by then.
        contended: runnable tasks by core; a job with all its cores busy is at 1.
        resized: items in a batch over those before, or the reverse.

    Steps of 50 ms become 150 ms at step 400:

    >>> detector = Slowdown()
    >>> for step in range(600):
    ...     for finding in detector.update(Reading.of(step, step_seconds=[0.05 if step < 400 else 0.15])):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 1))
    slowdown 400 479 3.0

    """

    kind: ClassVar[str] = "slowdown"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (
        "step_seconds",
        "machine_load",
        "batch_items",
        "forward_seconds",
        "backward_seconds",
    )

    def __init__(
        self,
        *,
        block_steps: int = 20,
        warm_up: int = 20,
        least_blocks: int = 6,
        blocks: int = 4,
        factor: float = 2.5,
        spread: float = 1.3,
        leap: float = 4.0,
        even: float = 2.0,
        vouched_blocks: int = 8,
        vouched_leap: float = 2.0,
        vouched_seconds: float = 3.0,
        least_seconds: float = 0.002,
        lasting_seconds: float = 8.0,
        contended: float = 1.5,
        resized: float = 1.15,
    ) -> None:
        self.block_steps, self.warm_up = block_steps, warm_up
        self.least_blocks, self.blocks = least_blocks, blocks
        self.factor, self.spread, self.leap, self.even = factor, spread, leap, even
        self.least_seconds, self.lasting_seconds = least_seconds, lasting_seconds
        self.vouched_blocks, self.vouched_leap, self.vouched_seconds = vouched_blocks, vouched_leap, vouched_seconds
        self.sizes = BatchSizes(resized=resized, lasting=block_steps // 2)
        self.pace, self.tail = Pace(contended=contended), Tail(Allowance())
        self._seen = 0
        self._score = -np.inf
        """Largest since the tail was last told."""
        self._steps = np.zeros(block_steps, dtype=np.int64)
        self._oldest = 0
        """Place of the oldest of the newest steps."""
        self._newest = np.full((block_steps // EVERY, 0), np.nan, dtype=np.float16)
        """Seconds of the newest steps. The blocks of rank i end i steps after those of rank 0, to spread the work."""
        self._recent = np.full((0, blocks), np.nan, dtype=np.float16)
        """Medians of the newest blocks, and of those before."""
        self._medians = UsualLevels(REFERENCE)
        self._slow = np.zeros(0, dtype=np.uint8)
        """Slow blocks in a row; what follows only while anybody has had one."""
        self._doubtful = np.zeros(0, dtype=np.uint8)
        """Blocks among them of which it is not known yet whether the machine was to blame."""
        self._since = np.zeros(0, dtype=np.int32)
        self._lasted = np.zeros(0, dtype=np.float32)
        self._unlikely = np.zeros(0, dtype=bool)
        """Whether the slow blocks in progress are more than chance."""
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"Slowdown(factor={self.factor}, blocks={self.blocks})"

    def allow(self, allowance: Allowance) -> None:
        """Be wrong so often."""
        self.tail.allowance = allowance

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        if "step_seconds" not in reading.values:
            return []
        if len(reading.values["step_seconds"]) > len(self._alarmed):
            self._grow(len(reading.values["step_seconds"]))
        ranks = len(self._alarmed)
        values, _ = scalar(reading, "step_seconds", ranks)
        if "batch_items" in reading.values:
            self._begin_anew(self.sizes.take(scalar(reading, "batch_items", ranks)[0]))
        self._seen += 1
        place = (self._seen - self.warm_up - 1) % self.block_steps
        self.pace.take(reading, place)
        if self._seen <= self.warm_up:
            return []
        sound = (values > ZERO) & (values < LONGEST)
        slot, some = place // EVERY, slice(place % EVERY, None, EVERY)
        self._newest[slot, some] = (values if np.count_nonzero(sound) == ranks else np.where(sound, values, np.nan))[
            some
        ]
        self._steps[place] = reading.step
        self._oldest = (place + 1) % self.block_steps
        turn = slice(self._oldest, None, self.block_steps)
        findings = self._judge(reading.step, np.arange(ranks)[turn], turn) if turn.start < ranks else []
        if place == self.block_steps - 1:
            self._note(reading.time)
        return findings

    def status(self) -> Status:
        """Warming up until the reference is whole."""
        if self._alarmed.any():
            return Status("alarm")
        if not self._seen:
            return Status("not_checked", "no step times were sent")
        needed = self.warm_up + self.block_steps * (self.least_blocks + self.blocks)
        if self._seen < needed:
            return Status("warming_up", f"{self._seen} of {needed} steps seen")
        return Status("ok")

    def _judge(self, step: int, ranks: Rows, turn: slice) -> list[Finding]:
        """Judge the ranks whose block ends here; ``turn`` selects the same, faster."""
        newest = self._newest[:, turn].astype(np.float32)
        median = row_median(newest.T)
        complete = np.count_nonzero(newest > 0, axis=0) > len(newest) // 2
        past = self._medians.of(turn)
        usual, slowest = row_median(past), np.fmax.reduce(past, axis=1)
        slow = complete & (np.count_nonzero(past > 0, axis=1) >= self.least_blocks - self.blocks)
        slow &= (median > self.factor * usual) & (median > self.spread * slowest)
        slow &= median - usual > self.least_seconds
        pace = self.pace.ratio(turn)
        longer = np.where(self.pace.crowded(turn), np.nan_to_num(pace, nan=np.inf), 1.0)
        began = slow & (self._slow[turn] == 0) & (self._doubtful[turn] == 0)
        doubt = self._doubt(turn, slow & np.isnan(pace))
        slow &= doubt | (median > self.factor * usual * longer)
        self.pace.follow(turn, ~slow)
        counted = slow & ~doubt
        streak = np.where(counted, np.minimum(self._slow[turn], MOST_BLOCKS) + 1, self._slow[turn] * slow)
        self._slow[turn] = streak
        kept = complete & ~doubt & (streak <= self.blocks)  # what has lasted so long is no reference any more
        self._remember(ranks[kept], median[kept])
        if not len(self._since) and not np.count_nonzero(slow):
            return []
        self._last(ranks, began, np.where(slow, median, 0.0))
        sure = self._lasting(ranks, np.where(counted, streak, 0), pace <= UNHINDERED)
        found = [
            self._finding(step, int(rank), now, before)
            for rank, now, before in zip(ranks[sure], median[sure].tolist(), usual[sure].tolist(), strict=True)
        ]
        if not self._slow.any() and not self._doubtful.any():
            self._since, self._lasted = self._since[:0].copy(), self._lasted[:0].copy()
            self._unlikely = self._unlikely[:0].copy()
        return found

    def _doubt(self, turn: slice, unknown: Mask) -> Mask:
        """Whose slow block says nothing yet, as the machine is crowded and no passes have been timed since."""
        unknown &= self.pace.crowded(turn)
        self._doubtful[turn] = np.where(unknown, np.minimum(self._doubtful[turn], PATIENCE) + 1, 0)
        doubt: Mask = unknown & (self._doubtful[turn] <= PATIENCE)
        return doubt

    def _last(self, ranks: Rows, began: Mask, seconds: Floats) -> None:
        """Count the time of slow blocks, from the first one on; of others ``seconds`` are 0."""
        count = len(self._alarmed)
        self._since, self._lasted = grown(self._since, count), grown(self._lasted, count)
        self._unlikely = grown(self._unlikely, count)
        self._since[ranks[began]] = self._steps[self._oldest]
        self._lasted[ranks] = np.where(seconds > 0, self._lasted[ranks] + self.block_steps * seconds, 0.0)
        self._unlikely[ranks[seconds == 0]] = False

    def _lasting(self, ranks: Rows, streak: NDArray[np.integer[Any]], vouched: Mask) -> Mask:
        """Whose slow blocks in a row are more than chance and have lasted; ``streak`` is 0 where one is doubtful."""
        fresh = ~self._alarmed[ranks]
        for rank in ranks[(streak == self.blocks) & fresh]:
            self._unlikely[rank] = self._surprising(int(rank))
        for rank in ranks[(streak >= self.vouched_blocks) & vouched & fresh & ~self._unlikely[ranks]]:
            self._unlikely[rank] = self._left(int(rank), self.vouched_leap)
        least = np.where(vouched, self.vouched_seconds, self.lasting_seconds)
        sure: Mask = (streak >= self.blocks) & self._unlikely[ranks] & (self._lasted[ranks] >= least) & fresh
        self._alarmed[ranks[sure]] = True
        return sure

    def _surprising(self, rank: int) -> bool:
        """Whether the newest blocks of this rank are too unlikely to be chance."""
        limit = self.tail.limit()
        score = -float(np.log(np.clip(self._chance(rank) * len(self._alarmed), 1e-300, 1.0)))
        self._score = max(self._score, score)
        return score > limit or self._left(rank, self.leap)

    def _left(self, rank: int, leap: float) -> bool:
        """Whether this rank has left a level that was even of late by so much that it is no chance."""
        past = self._medians.of(np.array([rank]))[0]
        newest = past[past > 0][-NEAR:]
        return leapt(newest, self._recent[rank], least=self.least_blocks, even=self.even, leap=leap)

    def _chance(self, rank: int) -> float:
        """Of blocks like the newest of this rank, after such a past."""
        past = self._medians.of(np.array([rank]))[0].astype(np.float64)
        return surprise(np.log(past[past > 0]), np.log(self._recent[rank], dtype=np.float64), near=NEAR)

    def _note(self, time: float) -> None:
        """Every rank has ended a block: that was one test."""
        self.tail.note(self._score, time)
        self._score = -np.inf

    def _remember(self, ranks: Rows, median: Floats) -> None:
        """Put a block behind the newest, and the oldest of these into the reference."""
        leaving = ranks[self._recent[ranks, 0] > 0]
        self._medians.add(leaving, self._recent[leaving, 0].astype(np.float32))
        self._recent[ranks] = np.roll(self._recent[ranks], -1, axis=1)
        self._recent[ranks, -1] = median

    def _begin_anew(self, renewed: Rows) -> None:
        """What these ranks do from now on is another kind of step."""
        self._slow[renewed] = self._doubtful[renewed] = 0
        self._medians.forget(renewed)
        self.pace.forget(renewed)
        for state in (self._newest.T, self._recent):
            state[renewed] = np.nan

    def _finding(self, step: int, rank: int, now: float, usual: float) -> Finding:
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(self._since[rank]),
            step=step,
            value=now / usual,
            threshold=self.factor,
            subject=rank,
            evidence={"seconds_before": usual, "seconds_now": now},
        )

    def _grow(self, count: int) -> None:
        nan = float("nan")
        self._newest, self._recent = grown(self._newest.T, count, nan).T.copy(), grown(self._recent, count, nan)
        self.pace.grow(count)
        self._medians.grow(count)
        self.sizes.grow(count)
        self._slow, self._doubtful = grown(self._slow, count), grown(self._doubtful, count)
        self._alarmed = grown(self._alarmed, count)
