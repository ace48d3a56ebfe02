"""Slowdown: steps take longer than they did, and stay so."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.allowance import Allowance, Tail
from torchvitals.detectors.block_statistics import Floats, Mask, row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import ZERO, grown, scalar, single, worked
from torchvitals.detectors.surprise import leapt, surprise
from torchvitals.detectors.usual_levels import UsualLevels

Rows = NDArray[np.intp]
REFERENCE = 40
"""Blocks of the past that are remembered."""
LONGEST = np.array(6e4)
"""Seconds; more is a broken number, and float16 ends there. It is exact to 0.05 %, where 2.5 times is slow."""
MOST_BLOCKS = 250
"""Slow blocks in a row that are counted, and steps with another size of batch."""
EVERY = 2
"""Of so many steps one is looked at: the median of ten says as much as that of twenty for half of the room."""
SELDOM = 4
"""The same of their work, which is looked at on crowded machines alone."""
NEAR = 16
"""Of which the newest are the level to compare with: machines change over hours."""


class Slowdown:
    """The median step of each of the newest ``blocks`` blocks is far above the blocks before, and not by chance.

    Medians do not see evaluations and checkpoints. Two keys. *Effect*: the median lies above ``factor`` times the
    usual one *and* above ``spread`` times the slowest block so far, so that a job with two kinds of steps is not slow;
    it is asked for so much on purpose, as other jobs on the machine make honest steps twice as long for minutes.
    Where more than ``contended`` tasks want each core, steps of 6 ms were seen to take 300 ms, which says nothing about
    the job: there its own forward and backward passes, which do the same work as ever, are the clock by which a step is
    measured; where they were not timed, such blocks are passed over. *Significance*: after such a past, blocks like
    these come less often than the allowance lets them (:mod:`~torchvitals.detectors.allowance`). *Continuity*:
    ``lasting_seconds``.

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
        even: slowest over fastest block of such a past; one that wanders further may wander on.
        least_seconds: a step must take so much longer at least; below, timers and schedulers speak.
        lasting_seconds: and for so long, by the step times themselves: a neighbour's burst is over by then.
        contended: runnable tasks by core; a job with all its cores busy is at 1.
        resized: items in a batch over those before, or the reverse; the last batch of an epoch is one step.

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
        least_seconds: float = 0.002,
        lasting_seconds: float = 8.0,
        contended: float = 1.5,
        resized: float = 1.15,
    ) -> None:
        self.block_steps, self.warm_up = block_steps, warm_up
        self.least_blocks, self.blocks = least_blocks, blocks
        self.factor, self.spread, self.leap, self.even = factor, spread, leap, even
        self.least_seconds, self.lasting_seconds = least_seconds, lasting_seconds
        self.contended, self.resized, self.tail = contended, resized, Tail(Allowance())
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
        self._work = np.full((block_steps // SELDOM, 0), np.nan, dtype=np.float16)
        """Seconds of forward and backward in the newest steps."""
        self._pace = np.full(0, np.nan, dtype=np.float16)
        """Their median in an ordinary block, followed slowly."""
        self._slow = np.zeros(0, dtype=np.uint8)
        """Slow blocks in a row; what follows only while anybody has had one."""
        self._since = np.zeros(0, dtype=np.int32)
        self._lasted = np.zeros(0, dtype=np.float32)
        self._unlikely = np.zeros(0, dtype=bool)
        """Whether the slow blocks in progress are more than chance."""
        self._load = np.zeros(0, dtype=np.float16)
        """Newest load of each rank's machine; 0 while nobody told it."""
        self._items = np.full(0, np.nan, dtype=np.float32)
        """In a batch of the reference, and for how many steps there have been others."""
        self._differs = np.zeros(0, dtype=np.uint8)
        self._resizing = False
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
        if "machine_load" in reading.values:
            load, told = scalar(reading, "machine_load", ranks)
            np.copyto(self._load, np.clip(load, 0.0, LONGEST).astype(np.float16), where=told & np.isfinite(load))
        if "batch_items" in reading.values:
            self._resize(scalar(reading, "batch_items", ranks)[0])
        self._seen += 1
        if self._seen <= self.warm_up:
            return []
        place = (self._seen - self.warm_up - 1) % self.block_steps
        sound = (values > ZERO) & (values < LONGEST)
        slot, some = place // EVERY, slice(place % EVERY, None, EVERY)
        self._newest[slot, some] = (values if np.count_nonzero(sound) == ranks else np.where(sound, values, np.nan))[
            some
        ]
        few = slice(place % SELDOM, None, SELDOM)
        self._work[place // SELDOM, few] = worked(reading, ranks, LONGEST)[few]
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
        work = row_median(self._work[:, turn].T.astype(np.float32))
        slow &= (median - usual > self.least_seconds) & (median > self.factor * usual * self._hindered(turn, work))
        streak = np.where(slow, np.minimum(self._slow[turn], MOST_BLOCKS) + 1, 0).astype(np.uint8)
        self._slow[turn] = streak
        kept = complete & (streak <= self.blocks)  # what has lasted so long is no reference any more
        self._remember(ranks[kept], median[kept])
        self._follow(turn, ~slow, work)
        if not len(self._since) and not np.count_nonzero(slow):
            return []
        sure = self._lasting(ranks, streak, median)
        found = [
            self._finding(step, int(rank), now, before)
            for rank, now, before in zip(ranks[sure], median[sure].tolist(), usual[sure].tolist(), strict=True)
        ]
        if not self._slow.any():
            self._since, self._lasted = self._since[:0].copy(), self._lasted[:0].copy()
            self._unlikely = self._unlikely[:0].copy()
        return found

    def _lasting(self, ranks: Rows, streak: NDArray[np.uint8], median: Floats) -> Mask:
        """Whose slow blocks in a row are more than chance and have lasted."""
        count = len(self._alarmed)
        self._since, self._lasted = grown(self._since, count), grown(self._lasted, count)
        self._unlikely = grown(self._unlikely, count)
        self._since[ranks[streak == 1]] = self._steps[self._oldest]
        seconds = self.block_steps * np.nan_to_num(median)
        self._lasted[ranks] = np.where(streak > 0, self._lasted[ranks] + seconds, 0.0)
        self._unlikely[ranks[streak < self.blocks]] = False
        for rank in ranks[(streak == self.blocks) & ~self._alarmed[ranks]]:
            self._unlikely[rank] = self._surprising(int(rank))
        sure: Mask = self._unlikely[ranks] & (self._lasted[ranks] >= self.lasting_seconds) & ~self._alarmed[ranks]
        self._alarmed[ranks[sure]] = True
        return sure

    def _hindered(self, turn: slice, work: Floats) -> Floats:
        """How many times longer the same work takes than it did, on a machine that others use; infinite: unknown."""
        ratio = work / self._pace[turn]  # both above 0, or NaN
        return np.where(self._load[turn] <= self.contended, 1.0, np.where(ratio > 0, np.maximum(ratio, 1.0), np.inf))

    def _follow(self, turn: slice, ordinary: Mask, work: Floats) -> None:
        """Take the newest block's work into the pace of this job."""
        pace = self._pace[turn]
        mixed = np.where(np.isnan(pace), work, pace + (work - pace) / 8).astype(np.float16)
        self._pace[turn] = np.where(ordinary & np.isfinite(work), mixed, pace)

    def _surprising(self, rank: int) -> bool:
        """Whether the newest blocks of this rank are too unlikely to be chance."""
        limit = self.tail.limit()
        score = -float(np.log(np.clip(self._chance(rank) * len(self._alarmed), 1e-300, 1.0)))
        self._score = max(self._score, score)
        past = self._medians.of(np.array([rank]))[0]
        return score > limit or leapt(past, self._recent[rank], least=self.least_blocks, even=self.even, leap=self.leap)

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

    def _resize(self, items: Floats) -> None:
        """Begin the reference anew where batches have had another size for more steps than half a block, in a row."""
        if not self._resizing and not np.count_nonzero(items != self._items):
            return
        known = (items > 0) & (items < np.inf)
        fresh = known & np.isnan(self._items)
        np.copyto(self._items, single(items), where=fresh)
        ratio = np.divide(items, self._items, out=np.ones_like(items), where=known)
        differs = (ratio > self.resized) | (ratio < 1 / self.resized)
        again = np.where(differs, np.minimum(self._differs, MOST_BLOCKS) + 1, 0).astype(np.uint8)
        self._differs = np.where(known, again, self._differs)
        self._resizing = bool(self._differs.any())
        renewed = np.flatnonzero(self._differs > self.block_steps // 2)
        self._items[renewed] = items[renewed]
        self._differs[renewed] = self._slow[renewed] = 0
        self._medians.forget(renewed)
        for state in (self._newest.T, self._recent, self._work.T, self._pace):
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
        self._work, self._pace = grown(self._work.T, count, nan).T.copy(), grown(self._pace, count, nan)
        self._medians.grow(count)
        self._items = grown(self._items, count, nan)
        self._slow, self._load = grown(self._slow, count), grown(self._load, count)
        self._alarmed = grown(self._alarmed, count)
        self._differs = grown(self._differs, count)
