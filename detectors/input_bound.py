"""Input-bound: the model waits for its data more than it computes."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.ring import NOBODY
from torchvitals.detectors.scalars import ZERO, Mask, Singles, grown, scalar

CLOCKS = ("step_seconds", "data_seconds")
LONGEST = np.array(1e9)
"""Seconds; more is a broken number."""


class InputBound:
    """The loader's share of the step time, block by block, is high for ``blocks`` blocks in a row.

    Sums of a block are compared, not single steps: a loader with workers hands out a batch late every few
    steps. The share that costs something is one half: without the wait the job would be twice as fast.

    Args:
        block_steps: steps in a block.
        warm_up: steps before the first: starting workers takes 10 ms to seconds.
        share: of the step time that is waiting.
        blocks: consecutive blocks that make it certain; caches of the first epoch fill meanwhile.
        least_seconds: mean wait per step below which nobody gains by changing anything: a tiny model on an honest
            loader steps in 1 ms and waits for 3. On a machine where more tasks than one want each core it is as many
            times that: a batch that is made in 6 ms then takes 21.
        calm: share below which a block is one of a loader that keeps up.
        calm_blocks: of them after which it is known what the job is used to.
        soon: blocks that are enough from then on: no cache is being filled, something has changed.
        soon_share: of the step time that it must be for that, so that the wait has grown sevenfold,
        lasting_seconds: and the waiting so far: a neighbour's burst on the disk is over by then.

    >>> detector = InputBound()
    >>> for step in range(400):
    ...     wait = 0.01 if step < 100 else 0.25
    ...     for finding in detector.update(Reading.of(step, step_seconds=[0.05 + wait], data_seconds=[wait])):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 2))
    input_bound 100 179 0.83

    """

    kind: ClassVar[str] = "input_bound"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("step_seconds", "data_seconds", "machine_load")

    def __init__(
        self,
        *,
        block_steps: int = 20,
        warm_up: int = 20,
        share: float = 0.6,
        blocks: int = 6,
        least_seconds: float = 0.01,
        calm: float = 0.3,
        calm_blocks: int = 3,
        soon: int = 4,
        soon_share: float = 0.75,
        lasting_seconds: float = 8.0,
    ) -> None:
        self.block_steps = block_steps
        self.warm_up = warm_up
        self.share = share
        self.blocks = blocks
        self.least_seconds = least_seconds
        self.calm, self.calm_blocks, self.soon = calm, calm_blocks, soon
        self.soon_share, self.lasting_seconds = soon_share, lasting_seconds
        self._seen = 0
        self._taken = 0
        self._first = -1
        self._sums = np.zeros((2, 0), dtype=np.float32)  # step time, wait
        self._steps = np.zeros(0, dtype=np.uint8)
        """Of this block in which both were told."""
        self._row = np.zeros(0, dtype=np.uint8)
        """Blocks in a row, as far as they are counted."""
        self._since = np.zeros(0, dtype=np.int32)
        """First step of the first of them, and the waiting since, while anybody has any."""
        self._waited = np.zeros(0, dtype=np.float32)
        self._calm = np.zeros(0, dtype=np.uint8)
        """Calm blocks, as far as they are counted."""
        self._alarmed = np.zeros(0, dtype=bool)
        self._load = 0.0
        """Tasks that want each core of the most crowded machine, as last told."""

    def __repr__(self) -> str:
        return f"InputBound(share={self.share}, blocks={self.blocks})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        if "machine_load" in reading.values:
            load = reading.values["machine_load"][reading.present["machine_load"]]
            self._load = float(np.max(load, initial=0.0)) if np.isfinite(load).all() else self._load
        if any(name not in reading.values for name in CLOCKS):
            return []
        self._grow(max(len(reading.values[name]) for name in CLOCKS))
        (total, _), (wait, _) = (scalar(reading, name, len(self._alarmed)) for name in CLOCKS)
        self._seen += 1
        if self._seen <= self.warm_up:
            return []
        usable = (wait >= ZERO) & (total >= wait) & (total < LONGEST)
        if np.count_nonzero(usable) < len(usable):
            total, wait = np.where(usable, total, 0.0), np.where(usable, wait, 0.0)
        self._sums += np.array([total, wait], dtype=np.float32)
        self._steps += usable
        if self._first < 0:  # what holds in the first block has held since the job began
            self._first = 0 if self._seen == self.warm_up + 1 else reading.step
        self._taken += 1
        return self._judge(reading.step) if self._taken == self.block_steps else []

    def status(self) -> Status:
        """Warming up until enough blocks were seen."""
        if self._alarmed.any():
            return Status("alarm")
        if not self._seen:
            return Status("not_checked", "no waits for a data loader were sent")
        needed = self.warm_up + self.block_steps * self.blocks
        if self._seen < needed:
            return Status("warming_up", f"{self._seen} of {needed} steps seen")
        return Status("ok")

    def _judge(self, step: int) -> list[Finding]:
        (total, wait), steps = self._sums, self._steps
        enough = steps >= self.block_steps // 2
        least = self.least_seconds * max(1.0, self._load)
        bound = enough & (wait > self.share * total) & (wait > least * steps)
        going = np.count_nonzero(bound) > 0
        self._since = grown(self._since, len(bound)) if going else self._since[:0].copy()
        self._since[np.flatnonzero(bound & (self._row == 0))] = self._first
        self._waited = grown(self._waited, len(bound)) if going else self._waited[:0].copy()
        self._waited[np.flatnonzero(bound & (self._row == 0))] = 0.0
        self._row = np.where(bound, np.minimum(self._row, self.blocks) + 1, 0).astype(np.uint8)
        certain = np.flatnonzero(self._certain(bound, total, wait)) if going else NOBODY
        findings = [self._finding(step, int(rank), float(total[rank]), float(wait[rank])) for rank in certain]
        self._alarmed[certain] = True
        calm = enough & (wait < self.calm * total)
        self._calm = np.where(calm, np.minimum(self._calm, self.calm_blocks) + 1, self._calm).astype(np.uint8)
        self._sums.fill(0.0)
        self._steps.fill(0)
        self._taken, self._first = 0, -1
        return findings

    def _certain(self, bound: Mask, total: Singles, wait: Singles) -> Mask:
        """Whose blocks in a row are enough; fewer are where the loader had kept up before."""
        self._waited += np.where(bound, wait, 0.0)
        changed = (self._calm >= self.calm_blocks) & (wait > self.soon_share * total)
        changed &= (self._row >= self.soon) & (self._waited >= self.lasting_seconds)
        certain: Mask = ((self._row >= self.blocks) | changed) & ~self._alarmed
        return certain

    def _finding(self, step: int, rank: int, total: float, wait: float) -> Finding:
        evidence = {
            "share": wait / total,
            "wait_seconds": wait / self.block_steps,
            "step_seconds": total / self.block_steps,
            "speedup": min(total / max(total - wait, 1e-9 * total), 1000.0),
        }
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(self._since[rank]),
            step=step,
            value=wait / total,
            threshold=self.share,
            subject=rank,
            evidence=evidence,
        )

    def _grow(self, count: int) -> None:
        if count > len(self._alarmed):
            self._sums = grown(self._sums.T, count).T.copy()
            self._steps = grown(self._steps, count)
            self._row = grown(self._row, count)
            self._calm = grown(self._calm, count)
            self._alarmed = grown(self._alarmed, count)
