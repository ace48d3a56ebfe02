"""Slowdown: steps take longer than they did, and stay so."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.block_statistics import Floats, Mask, row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status


class Slowdown:
    """The median step of each of the newest ``blocks`` blocks is far above all the blocks before.

    Medians do not see evaluations and checkpoints. The effect asked for is large on purpose: other jobs on the
    machine make honest steps twice as long for minutes. Where more than ``contended`` tasks want each core, steps
    of 6 ms were seen to take 300 ms: that says nothing about the job, and such blocks are passed over. A block must
    lie above ``factor`` times the median *and* above ``spread`` times the slowest block so far, so that a job with
    two kinds of steps is not slow.

    Args:
        block_steps: steps in a block; evaluations every few steps fall below its median.
        warm_up: steps before the first block: compilation, autotuning and caches.
        least_blocks: blocks of reference.
        blocks: consecutive slow blocks that make it certain.
        factor: over the median of the reference.
        spread: over its slowest block.
        least_seconds: a step must take so much longer at least; below, timers and schedulers speak.
        lasting_seconds: and for so long, by the step times themselves: a neighbour's burst is over by then.
        contended: runnable tasks by core; a job with all its cores busy is at 1.

    Steps of 50 ms become 150 ms at step 400:

    >>> detector = Slowdown()
    >>> for step in range(600):
    ...     for finding in detector.update(Reading.of(step, step_seconds=[0.05 if step < 400 else 0.15])):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 1))
    slowdown 400 479 3.0

    """

    kind: ClassVar[str] = "slowdown"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("step_seconds", "machine_load")

    def __init__(
        self,
        *,
        block_steps: int = 20,
        warm_up: int = 20,
        least_blocks: int = 6,
        blocks: int = 4,
        factor: float = 2.5,
        spread: float = 1.3,
        least_seconds: float = 0.002,
        lasting_seconds: float = 8.0,
        contended: float = 1.5,
    ) -> None:
        self.block_steps = block_steps
        self.warm_up = warm_up
        self.least_blocks = least_blocks
        self.blocks = blocks
        self.factor = factor
        self.spread = spread
        self.least_seconds = least_seconds
        self.lasting_seconds = lasting_seconds
        self.contended = contended
        self._seen = 0
        self._steps: list[int] = []
        self._block = np.full((0, block_steps), np.nan)
        self._medians = np.full((0, 64), np.nan)
        self._slow = np.zeros(0, dtype=np.int64)
        self._since = np.zeros(0, dtype=np.int64)
        self._lasted = np.zeros(0)
        self._load = np.zeros(0)
        """Newest load of each rank's machine; 0 while nobody told it."""
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"Slowdown(factor={self.factor}, blocks={self.blocks})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        if "step_seconds" not in reading.values:
            return []
        values = np.asarray(reading.values["step_seconds"], np.float64)
        self._grow(len(values))
        if "machine_load" in reading.values:
            load = np.where(reading.present["machine_load"], reading.values["machine_load"], np.nan)
            self._load[: len(load)] = np.where(np.isfinite(load), load, self._load[: len(load)])
        self._seen += 1
        if self._seen <= self.warm_up:
            return []
        usable = reading.present["step_seconds"] & np.isfinite(values) & (values > 0)
        self._block[: len(values), len(self._steps)] = np.where(usable, np.minimum(values, 1e9), np.nan)
        self._steps.append(reading.step)
        if len(self._steps) < self.block_steps:
            return []
        findings = self._judge(reading.step)
        self._steps.clear()
        self._block.fill(np.nan)
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

    def _judge(self, step: int) -> list[Finding]:
        median = row_median(self._block)
        usual, slowest = row_median(self._medians), np.fmax.reduce(self._medians, axis=1)
        reference = np.isfinite(self._medians).sum(1) >= self.least_blocks
        slow = reference & (median > self.factor * usual) & (median > self.spread * slowest)
        slow &= (median - usual > self.least_seconds) & (self._load <= self.contended)
        self._since = np.where(slow & (self._slow == 0), self._steps[0], self._since)
        self._slow = np.where(slow, self._slow + 1, 0)
        self._lasted = np.where(slow, self._lasted + self.block_steps * np.nan_to_num(median), 0.0)
        certain = (self._slow >= self.blocks) & (self._lasted >= self.lasting_seconds) & ~self._alarmed
        self._alarmed |= certain
        self._remember(median, ~slow & np.isfinite(median))
        return [
            self._finding(step, int(rank), float(median[rank]), float(usual[rank])) for rank in np.nonzero(certain)[0]
        ]

    def _remember(self, median: Floats, mine: Mask) -> None:
        """Slow blocks are not reference; where they stay, the alarm has been given."""
        self._medians[mine, :-1] = self._medians[mine, 1:]
        self._medians[mine, -1] = median[mine]

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
        more = count - len(self._alarmed)
        if more > 0:
            self._block = np.pad(self._block, ((0, more), (0, 0)), constant_values=np.nan)
            self._medians = np.pad(self._medians, ((0, more), (0, 0)), constant_values=np.nan)
            self._slow, self._since = np.pad(self._slow, (0, more)), np.pad(self._since, (0, more))
            self._lasted, self._load = np.pad(self._lasted, (0, more)), np.pad(self._load, (0, more))
            self._alarmed = np.pad(self._alarmed, (0, more))
