"""Memory pressure: the device is so full that the allocator must empty its cache to go on."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import scalar


class MemoryPressure:
    """The allocator's count of retries rises: an allocation succeeded only after the cache had been flushed.

    Each retry waits for the device and gives cached memory back; the next one may fail. One retry can be a
    single large batch, so it takes ``retries`` of them at ``steps`` different steps after the first step.

    Args:
        retries: rise of the counter since the first step.
        steps: steps at which it rose.

    >>> detector = MemoryPressure()
    >>> for step, count in enumerate([0, 0, 0, 1, 1, 2, 4]):
    ...     for finding in detector.update(Reading.of(step, cuda_alloc_retries=[count])):
    ...         print(finding.kind, finding.first_step, finding.step, finding.value)
    memory_pressure 3 6 4.0

    """

    kind: ClassVar[str] = "memory_pressure"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("cuda_alloc_retries",)

    def __init__(self, *, retries: int = 3, steps: int = 3) -> None:
        self.retries = retries
        self.steps = steps
        self._start = np.zeros(0)
        self._last = np.zeros(0)
        self._rises = np.zeros(0, dtype=np.int64)
        self._since = np.zeros(0, dtype=np.int64)
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"MemoryPressure(retries={self.retries}, steps={self.steps})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        if "cuda_alloc_retries" not in reading.values:
            return []
        values = np.asarray(reading.values["cuda_alloc_retries"], np.float64)
        self._grow(len(values))
        count, present = scalar(reading, "cuda_alloc_retries", len(self._alarmed))
        usable = present & np.isfinite(count) & (count >= 0)
        np.copyto(self._start, count, where=usable & np.isnan(self._start))
        rose = usable & (count > np.fmax(self._last, self._start))
        np.fmax(self._last, count, out=self._last, where=usable)
        if not np.count_nonzero(rose):
            return []
        self._since = np.where(rose & (self._rises == 0), reading.step, self._since)
        self._rises += rose
        gained = self._last - self._start
        certain = np.flatnonzero((self._rises >= self.steps) & (gained >= self.retries) & ~self._alarmed)
        self._alarmed[certain] = True
        return [self._finding(reading.step, int(rank), float(gained[rank])) for rank in certain]

    def status(self) -> Status:
        """Nothing to warm up for."""
        if self._alarmed.any():
            return Status("alarm")
        if not len(self._alarmed):
            return Status("not_checked", "no CUDA allocator")
        return Status("ok")

    def _finding(self, step: int, rank: int, gained: float) -> Finding:
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

    def _grow(self, count: int) -> None:
        more = count - len(self._alarmed)
        if more > 0:
            self._start = np.pad(self._start, (0, more), constant_values=np.nan)
            self._last = np.pad(self._last, (0, more), constant_values=np.nan)
            self._rises, self._since = np.pad(self._rises, (0, more)), np.pad(self._since, (0, more))
            self._alarmed = np.pad(self._alarmed, (0, more))
