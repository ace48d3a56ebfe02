"""Creeping: each step takes a little longer than the one before, with work that grows as the job goes on."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.block_statistics import Floats
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.run_lows import BLOCKS, RunLows
from torchvitals.detectors.scalars import grown, scalar, single
from torchvitals.detectors.trend import Slope, corner, theil_sen

PARTS = 6
STAIRS = 16
NANO = 1e9
"""The lows are kept as whole numbers of 256: in nanoseconds that is finer than any clock."""
LONGEST = 6e4
"""Seconds; more is a broken number."""
CLOCKS = ("forward_seconds", "backward_seconds")


class Creeping:
    """The fastest step of each part of the run is slower than that of the part before, in a line.

    Something that grows is gone through whole at each step: a history is searched, a buffer is weighed anew, all
    predictions so far are concatenated. Of 48 blocks that together are all of the run the fastest step counts, which
    a busy machine seldom touches. The job's own passes are the clock, forward or backward, whichever has slowed down
    less: where episodes get longer both take longer, and so they do on a machine that fills up.

    :class:`~torchvitals.detectors.slowdown.Slowdown` looks for a level that is left, which a ramp never is.

    Args:
        warm_up: steps before the first block: compilation, autotuning and caches.
        block_steps: steps of the first blocks, whose length doubles as the run goes on.
        least_steps: that a rise must have lasted; an epoch's bookkeeping is over by then.
        least_seconds: that a step must have gained; below, timers and schedulers speak.
        factor: of the first blocks; the same that a leap is asked for, since it is as much lost.
        evenness: share of the mean rise that the parts must reach, all but one, and the last one among them.
        steadiness: median over mean of the rises of sixteen parts: a curriculum goes up by stairs.
        straightness: the second half must rise at least this much of what the first half rose: a buffer fills up.
        longer: batches with so many times the values of the first are work that is meant to grow.
        given_back: share of the gain that the steps may get faster in between.
        ranks: followed, the first ones: ranks that step together are slow together, and of others these are enough.
        z: width of the slope's interval in standard deviations; it must exclude 0.

    Steps of 10 ms take 0.1 ms longer each:

    >>> detector = Creeping()
    >>> for step in range(400):
    ...     reading = {"step_seconds": [0.01 + 1e-4 * step], "forward_seconds": [0.003], "backward_seconds": [0.004]}
    ...     for finding in detector.update(Reading.of(step, **reading)):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 1))
    slowdown 0 255 2.9

    """

    kind: ClassVar[str] = "slowdown"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("step_seconds", *CLOCKS, "batch_values")

    def __init__(
        self,
        *,
        warm_up: int = 16,
        block_steps: int = 4,
        least_steps: int = 160,
        least_seconds: float = 0.002,
        factor: float = 2.5,
        evenness: float = 0.3,
        steadiness: float = 0.6,
        straightness: float = 0.6,
        longer: float = 1.25,
        given_back: float = 0.25,
        z: float = 2.6,
        ranks: int = 8,
    ) -> None:
        self.warm_up, self.least_steps = warm_up, least_steps
        self.least_seconds, self.factor = least_seconds, factor
        self.evenness, self.steadiness, self.straightness = evenness, steadiness, straightness
        self.longer, self.given_back, self.z = longer, given_back, z
        self.ranks = ranks
        self._lows = RunLows(1, block_steps)
        self._first = self._last = -1
        self._low = np.full((0, len(self.reads) - 1), np.nan, dtype=np.float32)
        """Of the clocks and of the batches, the least in the block in progress,"""
        self._low_first = self._low.copy()
        """in the first block that had any, and in the newest."""
        self._low_newest = self._low.copy()
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"Creeping(factor={self.factor}, block_steps={self._lows.steps})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        if "step_seconds" not in reading.values or reading.step <= self._last:
            return []
        ranks = min(self.ranks, max(len(self._alarmed), len(reading.values["step_seconds"])))
        self._grow(ranks)
        self._last = reading.step
        if self._first < 0:
            self._first = reading.step
        if reading.step < self._first + self.warm_up:
            return []
        seconds = scalar(reading, "step_seconds", ranks)[0]
        self._lows.note(0, np.where((seconds > 0) & (seconds < LONGEST), seconds, np.nan) * NANO)
        self._take_clocks(reading, ranks)
        if not self._lows.close(reading.step):
            return []
        fresh = np.isfinite(self._low)
        np.copyto(self._low_first, self._low, where=fresh & np.isnan(self._low_first))
        np.copyto(self._low_newest, self._low, where=fresh)
        self._low.fill(np.nan)
        return self._judge(reading.step)

    def status(self) -> Status:
        """Warming up until a rise could have lasted."""
        if self._alarmed.any():
            return Status("alarm")
        if self._first < 0:
            return Status("not_checked", "no step times were sent")
        seen, needed = self._last - self._first + 1, self.warm_up + self.least_steps
        return Status("ok") if seen >= needed else Status("warming_up", f"{seen} of {needed} steps seen")

    def _take_clocks(self, reading: Reading, ranks: int) -> None:
        for place, name in enumerate(self.reads[1:]):
            if name in reading.values:
                values = scalar(reading, name, ranks)[0]
                sound = (values > 0) & (values < (LONGEST if name in CLOCKS else np.inf))
                np.fmin(self._low[:, place], single(np.where(sound, values, np.nan)), out=self._low[:, place])

    def _judge(self, step: int) -> list[Finding]:
        if step - self._first < self.least_steps or len(self._lows.starts) < 2 * PARTS:
            return []
        found = []
        for _, rank in self._lows.risen(self.least_seconds * NANO, 0):
            if self._alarmed[rank]:
                continue
            slope = self._slope(rank)
            if slope:
                self._alarmed[rank] = True
                found.append(self._finding(step, rank, slope))
        return sorted(found, key=lambda finding: finding.subject or 0)

    def _slope(self, rank: int) -> Slope | None:
        """The slope where the steps of one rank creep, in nanoseconds a step."""
        y, x = self._series(rank)
        if len(y) < 2 * PARTS or x[-1] - x[0] < self.least_steps / 2:
            return None
        *clocks, batch = self._low_newest[rank].astype(np.float64) / self._low_first[rank]
        if batch >= self.longer:
            return None
        clock = float(np.min(clocks))
        places = np.searchsorted(x, np.linspace(x[0], x[-1], PARTS + 1)[1:-1])
        parts = np.array([np.median(part) if len(part) else np.nan for part in np.split(y, places)])
        if not parts[-1] > self.factor * max(clock, 1.0) * parts[0]:  # also where nobody knows the clock
            return None
        rises, gained = np.diff(parts), parts[-1] - parts[0]
        even = rises >= self.evenness * rises.mean()
        slackening = parts[-1] - parts[PARTS // 2] < self.straightness * (parts[PARTS // 2 - 1] - parts[0])
        fallen = float((np.maximum.accumulate(y) - y).max())
        if even.sum() < PARTS - 2 or not even[-1] or slackening or fallen > self.given_back * gained:
            return None
        stairs = np.diff(np.interp(np.linspace(x[0], x[-1], STAIRS + 1), x, y))
        if np.median(stairs) < self.steadiness * stairs.mean():
            return None
        slope = theil_sen(x, y, self.z)
        return slope if slope.low > 0 else None

    def _series(self, rank: int) -> tuple[Floats, Floats]:
        lows = self._lows.series(0, rank)
        known = np.isfinite(lows)
        return lows[known], np.asarray(self._lows.starts, np.float64)[known]

    def _finding(self, step: int, rank: int, slope: Slope) -> Finding:
        y, x = self._series(rank)
        place = corner(y)
        before, now = float(np.median(y[:2])) / NANO, float(np.median(y[-2:])) / NANO
        return Finding(
            kind=self.kind,
            severity="warning",
            # What is as old as the first blocks is as old as the run.
            first_step=0 if place <= BLOCKS // 16 else int(x[place]),
            step=step,
            value=now / before,
            threshold=self.factor,
            subject=rank,
            evidence={
                "shape": "gradual",
                "seconds_before": before,
                "seconds_now": now,
                "seconds_per_step": slope.value / NANO,
            },
        )

    def _grow(self, ranks: int) -> None:
        if ranks > len(self._alarmed):
            self._lows.grow(ranks)
            self._alarmed, self._low = grown(self._alarmed, ranks), grown(self._low, ranks, np.nan)
            self._low_first = grown(self._low_first, ranks, np.nan)
            self._low_newest = grown(self._low_newest, ranks, np.nan)
