"""Memory pressure: what is left will not last, or the device is so full that its allocator must empty its cache."""

from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.ladder import BLOCKS, Ladder
from torchvitals.detectors.rises import UNIT, halved
from torchvitals.detectors.scalars import ZERO, grown, scalar, single, subjects_of

USED = ("rss_bytes", "cuda_allocated_bytes")
LEFT = ("memory_headroom_bytes", "cuda_headroom_bytes")
MOST = np.array(1e18)
"""Bytes; more is a broken number."""


class MemoryPressure:
    """A forecast that memory runs out, or an allocator that only succeeds by flushing its cache.

    *Forecast*: memory rises in a straight line and has taken ``share`` of what was left when the rise began, so that
    the rest lasts at most ``1 / share - 1`` times as long. The line is looked for at every scale from 32 to 65,536
    steps (:class:`~torchvitals.detectors.ladder.Ladder`), which is why a leak that fills the headroom in half a million
    steps or fewer is told of before a quarter of it is gone, whenever it begins: at one scale the line holds between
    ``share`` and twice that. What rises in a curve, by stairs or to and fro is not forecast.

    *Retries*: each waits for the device and gives cached memory back; the next one may fail. One can be a single large
    batch, so it takes ``retries`` of them at ``steps`` different steps after the first step.

    Args:
        retries: rise of the counter since the first step.
        steps: steps at which it rose.
        share: of the headroom that the rise must have taken.
        least_gain: bytes; warming up takes 5 to 50 MB, whatever is left.
        evenness: share of the mean rise that each block must reach; arenas of 1 MB make small leaks climb by stairs.
        straightness: the last three blocks must rise at least this much of what the first three rose: a cache that
            warms up slackens.
        warm_up: steps before the first block.

    A step keeps 40 MB more than it should from step 500 on, where 10 GB are left:

    >>> detector = MemoryPressure()
    >>> for step in range(700):
    ...     kept = 4e7 * max(0, step - 500)
    ...     reading = Reading.of(step, rss_bytes=[1e9 + kept], memory_headroom_bytes=[1e10 - kept])
    ...     for finding in detector.update(reading):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 2))
    memory_pressure 500 532 0.11

    """

    kind: ClassVar[str] = "memory_pressure"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("cuda_alloc_retries", *USED, *LEFT)

    def __init__(
        self,
        *,
        retries: int = 3,
        steps: int = 3,
        share: float = 0.1,
        least_gain: float = 2.0**26,
        evenness: float = 0.4,
        straightness: float = 0.85,
        warm_up: int = 16,
    ) -> None:
        self.retries, self.steps = retries, steps
        self.share, self.least_gain = share, least_gain
        self.evenness, self.straightness = evenness, straightness
        self.warm_up = warm_up
        self._start = np.zeros(0, dtype=np.float32)
        self._last = np.zeros(0, dtype=np.float32)
        """Retries at first and now, once there have been any; exact up to 16 million."""
        self._rises = np.zeros(0, dtype=np.int32)
        self._since = np.zeros(0, dtype=np.int32)
        self._ladders = [Ladder() for _ in USED]
        self._left = np.full((0, len(LEFT)), np.nan, dtype=np.float16)
        """In units of rises.py."""
        self._counted = np.zeros(0, dtype=bool)
        """Who has told that there have been none."""
        self._first = -1
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"MemoryPressure(retries={self.retries}, steps={self.steps}, share={self.share})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        subjects = subjects_of(reading, self.reads)
        if not subjects:
            return []
        if subjects > len(self._alarmed):
            self._grow(subjects)
        self._first = reading.step if self._first < 0 else self._first
        self._look_round(reading)
        found = self._forecast(reading) if reading.step >= self._first + self.warm_up else []
        return found + self._retried(reading) if "cuda_alloc_retries" in reading.values else found

    def status(self) -> Status:
        """Nothing to warm up for."""
        if self._alarmed.any():
            return Status("alarm")
        if not len(self._alarmed):
            return Status("not_checked", "no memory figures were sent")
        if not np.isfinite(self._left).any() and not self._counted.any() and not len(self._last):
            return Status("not_checked", "neither what is left of the memory nor a CUDA allocator was seen")
        return Status("ok")

    def _look_round(self, reading: Reading) -> None:
        """Note what is left; it is told once a second."""
        for place, left in enumerate(LEFT):
            if left in reading.values:
                headroom, sent = scalar(reading, left, len(self._alarmed))
                np.copyto(
                    self._left[:, place],
                    halved(single(headroom)),
                    where=sent & np.isfinite(headroom) & (headroom >= 0),
                )

    def _forecast(self, reading: Reading) -> list[Finding]:
        found = []
        for place, used in enumerate(USED):
            if used not in reading.values:
                continue
            values, _ = scalar(reading, used, len(self._alarmed))
            sound = (values > ZERO) & (values < MOST)
            values = values if np.count_nonzero(sound) == len(sound) else np.where(sound, values, np.nan)
            ladder = self._ladders[place]
            for rung in chain.from_iterable(ladder.turns(reading.step)):
                for rank in self._run_out(ladder, rung, self._left[:, place]):
                    self._alarmed[rank] = True
                    found.append(self._forecast_of(reading.step, ladder, rung, rank, place))
            ladder.add(values)
        return found

    def _run_out(self, ladder: Ladder, rung: int, left: NDArray[np.float16]) -> list[int]:
        """The ranks whose blocks rise in a line that leads to the end, and which have not been told of."""
        ranks, gain = ladder.risen(rung, self.least_gain)
        if not len(ranks):
            return []
        ranks = ranks[(gain >= self.share * (gain + left[ranks] * UNIT)) & ~self._alarmed[ranks]]
        rises = np.diff(ladder.blocks(rung, ranks), axis=1)
        even = (rises >= self.evenness * rises.mean(axis=1, keepdims=True)).all(axis=1)
        straight = rises[:, -3:].sum(axis=1) >= self.straightness * rises[:, :3].sum(axis=1)
        run_out: list[int] = ranks[even & straight].tolist()
        return run_out

    def _forecast_of(self, step: int, ladder: Ladder, rung: int, rank: int, place: int) -> Finding:
        lows = ladder.blocks(rung, [rank])[0]
        gained, left = float(lows[-1] - lows[0]), float(self._left[rank, place] * UNIT)
        steps = (BLOCKS - 1) * ladder.steps_of(rung)
        rate = gained / steps
        onset = step - (float(lows[-1]) - ladder.lowest(rank)) / rate
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=max(0, round(onset) - ladder.steps_of(rung)),
            step=step,
            value=gained / (gained + left),
            threshold=self.share,
            subject=rank,
            evidence={
                "signal": USED[place],
                "bytes_per_step": rate,
                "gained_bytes": gained,
                "base_bytes": float(lows[0]),
                "headroom_bytes": left,
                "steps_left": left / rate,
                "steps_observed": steps,
            },
        )

    def _retried(self, reading: Reading) -> list[Finding]:
        count, present = scalar(reading, "cuda_alloc_retries", len(self._alarmed))
        usable, told = present & np.isfinite(count) & (count >= 0), single(count)
        if not len(self._last) and not np.count_nonzero(told > 0):
            self._counted |= usable
            return []
        self._make_room()
        np.copyto(self._start, told, where=usable & np.isnan(self._start))
        rose = usable & (told > np.fmax(self._last, self._start))
        np.fmax(self._last, told, out=self._last, where=usable)
        if not np.count_nonzero(rose):
            return []
        self._since = np.where(rose & (self._rises == 0), reading.step, self._since)
        self._rises += rose
        gained = self._last - self._start
        certain = np.flatnonzero((self._rises >= self.steps) & (gained >= self.retries) & ~self._alarmed)
        self._alarmed[certain] = True
        return [self._retries_of(reading.step, int(rank), float(gained[rank])) for rank in certain]

    def _retries_of(self, step: int, rank: int, gained: float) -> Finding:
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self._since[rank]),
            step=step,
            value=gained,
            threshold=float(self.retries),
            subject=rank,
            evidence={"signal": "cuda_alloc_retries", "rises": int(self._rises[rank])},
        )

    def _make_room(self) -> None:
        """For retries."""
        new, count = slice(len(self._last), None), len(self._alarmed)
        if len(self._last) == count:
            return
        self._start, self._last = grown(self._start, count, np.nan), grown(self._last, count, np.nan)
        self._rises, self._since = grown(self._rises, count), grown(self._since, count)
        for each in (self._start, self._last):
            each[new][self._counted[new]] = 0.0

    def _grow(self, count: int) -> None:
        self._left = grown(self._left, count, np.nan)
        self._alarmed, self._counted = grown(self._alarmed, count), grown(self._counted, count)
