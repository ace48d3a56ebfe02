"""Memory leak: every step keeps a little of what it used."""

from typing import ClassVar, NamedTuple

import numpy as np
from torchvitals.detectors.block_statistics import Floats
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.run_lows import BLOCKS, RunLows
from torchvitals.detectors.scalars import scalar
from torchvitals.detectors.trend import Slope, corner, theil_sen

PARTS = 6
STAIRS = 16
"""Finer parts, of which at least half must rise: each is longer than an allocator's arena takes to fill."""
ARENA = 1 << 20
RESIDENT, MAPPED = 0, 2
"""Places in ``reads``."""


class _Growth(NamedTuple):
    """What one stretch of the run says."""

    slope: Slope
    gained: float
    base: float
    steps: int


class MemoryLeak:
    """Memory after the step, at the same phase of every step, keeps rising in a line.

    The smallest value of each block is kept, 48 blocks whose length doubles as the run goes on; readings may come at
    every step or now and then, since jobs with short steps cannot pay for each. A stretch (all of
    the run after warm-up, or its newer half) leaks when the Theil-Sen interval excludes ``least_rate``, the gain
    is large enough both in bytes and against the base, five of its six parts rose at no less than ``evenness`` of the
    mean rise, the last one among them, and nothing that large was ever given back: allocators warm up in a
    curve, caches fill and stop, saw-teeth fall. Nor does a leak fill what was allocated long before (a replay
    buffer in one array, a mapped file): more memory must have been asked for, too.

    Args:
        warm_up: steps before the first block: 5 to 50 MB are allocated in them by healthy jobs.
        block_steps: steps of the first blocks.
        least_rate: bytes per step; below, 20 to 400 bytes per step are what logs of healthy jobs keep, measured.
        least_gain: bytes; resident memory of healthy jobs wanders by about 1 MB, and a net with a teacher took 1 MB
            evenly over its first 300 steps.
        least_relative: of the base.
        evenness: share of the mean rise that the parts must reach.
        steadiness: median over mean of the rises of sixteen parts: 0.71 to 1.18 in leaks of 5 kB to 2 MB a step,
            0.48 in a healthy job whose sequences grew from stage to stage.
        straightness: the second half must rise at least this much of what the first half rose: recurrent
            nets with sequences of changing length took 30 MB in their first 160 steps, in a curve.
        asked_for: share of a gain in resident memory by which the address space must have grown.
        given_back: share of the gain that may at most be released in between.
        z: width of the interval in standard deviations.
        steps_for: (gain over base, steps): how long a rise must have lasted before it is believed. A rise by
            half of the base is urgent after 64 steps; a faint one could still be an epoch's bookkeeping.

    A step keeps 64 kB more than it should, from step 300 on:

    >>> detector = MemoryLeak()
    >>> for step in range(800):
    ...     rss = 300e6 + 65536 * max(0, step - 300)
    ...     for finding in detector.update(Reading.of(step, rss_bytes=[rss])):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value))
    memory_leak 304 495 65536

    """

    kind: ClassVar[str] = "memory_leak"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("rss_bytes", "cuda_allocated_bytes", "mapped_bytes")
    by_address_space: ClassVar[bool] = True
    """Whether what became resident must have been asked for as well: `reads` has both."""

    def __init__(
        self,
        *,
        warm_up: int = 16,
        block_steps: int = 2,
        least_rate: float = 2000.0,
        least_gain: float = 2e6,
        least_relative: float = 0.002,
        evenness: float = 0.3,
        steadiness: float = 0.6,
        straightness: float = 0.6,
        asked_for: float = 0.5,
        given_back: float = 0.4,
        z: float = 2.6,
        steps_for: tuple[tuple[float, int], ...] = ((0.5, 64), (0.1, 128), (0.0, 160)),
    ) -> None:
        self.warm_up = warm_up
        self.least_rate = least_rate
        self.least_gain = least_gain
        self.least_relative = least_relative
        self.evenness = evenness
        self.steadiness = steadiness
        self.straightness = straightness
        self.asked_for = asked_for
        self.given_back = given_back
        self.z = z
        self.steps_for = steps_for
        self._lows = RunLows(len(self.reads), block_steps)
        self._first = self._last = -1
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(least_rate={self.least_rate:g}, block_steps={self._lows.steps})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        signals = [name for name in self.reads if name in reading.values]
        if not signals:
            return []
        self._grow(max(len(reading.values[name]) for name in signals))
        if reading.step <= self._last:
            return []
        self._last = reading.step
        if self._first < 0:
            self._first = reading.step
        if reading.step < self._first + self.warm_up:
            return []
        for row, name in enumerate(self.reads):
            if name in signals:
                self._lows.note(row, scalar(reading, name, len(self._alarmed))[0])
        return self._judge(reading.step) if self._lows.close(reading.step) else []

    def status(self) -> Status:
        """Warming up until the shortest stretch has been seen."""
        if self._alarmed.any():
            return Status("alarm")
        if self._first < 0:
            return Status("not_checked", "no memory figures were sent")
        needed = self.warm_up + min(steps for _, steps in self.steps_for)
        seen = self._last - self._first + 1
        if seen < needed:
            return Status("warming_up", f"{seen} of {needed} steps seen")
        return Status("ok")

    def _judge(self, step: int) -> list[Finding]:
        steps = self._lows.starts
        if len(steps) < 2 * PARTS:
            return []
        findings = []
        # Where steps were looked at less and less often the newer half has few blocks: then more than half, of enough.
        middle = min(int(np.searchsorted(steps, (steps[0] + steps[-1]) / 2)), len(steps) - 2 * PARTS)
        for start in (0, middle):
            for row, rank in self._lows.risen(self.least_gain, start):
                if self._alarmed[rank] or (self.by_address_space and row == MAPPED):
                    continue
                growth = self._growth(row, rank, start)
                if growth:
                    self._alarmed[rank] = True
                    findings.append(self._finding(step, row, rank, growth))
        return sorted(findings, key=lambda finding: finding.subject or 0)

    def _least(self, base: float) -> float:
        return max(self.least_gain, self.least_relative * base)

    def _asked(self, resident: Floats, mapped: Floats) -> bool:
        """Whether memory was asked for as it became resident, part by part; also where nobody knows.

        Some is reserved in one leap for other ends (a thread's arena: 64 MB), so that a part counts at most twice
        what it made resident, or one arena of Python's small objects.
        """
        known = np.isfinite(resident) & np.isfinite(mapped)
        if known.sum() < 2 * PARTS:
            return True
        rises = [
            np.diff([part[0] for part in np.array_split(x[known], PARTS)] + [x[known][-1]]) for x in (resident, mapped)
        ]
        counted = np.minimum(rises[1], np.maximum(2 * rises[0], ARENA))
        steady = np.argsort(counted)[:-1]  # without the part that grew most: a hunt for leaks takes 17 MB for a while
        return bool(counted[steady].sum() >= self.asked_for * rises[0][steady].sum())

    def _growth(self, row: int, rank: int, start: int) -> _Growth | None:
        """The growth when one rank's memory leaks in the blocks from ``start`` on."""
        lows = self._lows.series(row, rank, start)
        known = np.isfinite(lows)
        if known.sum() < 2 * PARTS or lows[-2:].min() - lows[:2].min() < self._least(lows[0]):
            return None
        if self.by_address_space and row == RESIDENT and not self._asked(lows, self._lows.series(MAPPED, rank, start)):
            return None
        y, x = lows[known], np.asarray(self._lows.starts[start:], np.float64)[known]
        # Parts of equal length in steps: readings may have been dense at first and rare later, or the reverse.
        places = np.searchsorted(x, np.linspace(x[0], x[-1], PARTS + 1)[1:-1])
        parts = np.array([np.median(part) if len(part) else np.nan for part in np.split(y, places)])
        if not np.isfinite(parts).all():
            return None
        rises = np.diff(parts)
        gained = float(parts[-1] - parts[0])
        even = rises >= self.evenness * rises.mean()
        fallen = float((np.maximum.accumulate(y) - y).max())
        if gained < self._least(y[0]) or fallen > self.given_back * gained:
            return None
        lasted = int(x[-1] - x[0]) + self._lows.steps
        if lasted < next(steps for relative, steps in self.steps_for if gained >= relative * y[0]):
            return None
        slackening = parts[-1] - parts[PARTS // 2] < self.straightness * (parts[PARTS // 2 - 1] - parts[0])
        if even.sum() < PARTS - 2 or not even[-1] or slackening:
            return None
        # A staircase (sequences that grow from stage to stage) stands still most of the time, a leak never does.
        stairs = np.diff(np.interp(np.linspace(x[0], x[-1], STAIRS + 1), x, y))
        if np.median(stairs) < self.steadiness * stairs.mean():
            return None
        slope = theil_sen(x, y, self.z)
        return _Growth(slope, gained, float(y[0]), lasted) if slope.low >= self.least_rate else None

    def _finding(self, step: int, row: int, rank: int, growth: _Growth) -> Finding:
        series = self._lows.series(row, rank)
        known = np.isfinite(series)
        place = corner(series[known])
        # A leak that is as old as the first blocks is as old as the run.
        first = 0 if place <= BLOCKS // 16 else np.asarray(self._lows.starts)[known][place]
        return Finding(
            kind=self.kind,
            severity="error" if growth.gained >= 0.1 * growth.base else "warning",
            first_step=int(first),
            step=step,
            value=growth.slope.value,
            threshold=self.least_rate,
            subject=rank,
            evidence={
                "signal": self.reads[row],
                "bytes_per_step": growth.slope.value,
                "bytes_per_step_low": growth.slope.low,
                "bytes_per_step_high": growth.slope.high,
                "gained_bytes": growth.gained,
                "base_bytes": growth.base,
                "steps_observed": growth.steps,
            },
        )

    def _grow(self, count: int) -> None:
        more = count - len(self._alarmed)
        if more > 0:
            self._lows.grow(count)
            self._alarmed = np.pad(self._alarmed, (0, more))
