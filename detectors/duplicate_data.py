"""Ranks train on the same batches: the cluster pays for each of them and learns from one."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown


class DuplicateData:
    """Batch digests equal across ranks in most checks, while they change over time.

    Certain when in at least ``equal`` of the last ``window`` checks two or more ranks shared a batch with another
    rank, and at least ``distinct`` different batches were among them. A constant batch (a synthetic benchmark,
    full-batch training) is therefore silent, and so is a chance collision of padded batches.
    Seen in LongLive#71 and mlcommons UNET3D#625 (20 to 30 % overlap from same-seeded samplers).

    >>> detector = DuplicateData()
    >>> for step in range(0, 60, 5):
    ...     for finding in detector.update(Reading.of(step, batch_digest=[step, step, -1 - step])):
    ...         print("certain at", finding.step, "since", finding.first_step, "ranks", finding.evidence["ranks"])
    certain at 25 since 0 ranks [0, 1]
    """

    kind: ClassVar[str] = "duplicate_data"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("batch_digest",)

    def __init__(
        self,
        *,
        window: int = 8,  # checks; one in five steps has one
        equal: int = 6,  # most of them: overlapping shards collide now and then
        distinct: int = 4,  # batches: fewer are a cycle over synthetic ones
    ) -> None:
        self.window, self.equal, self.distinct = window, equal, distinct
        self.shared = np.zeros(0, dtype=np.uint16)
        """By rank one bit for each of the last checks: whether another rank had the same batch."""
        self.batches = np.zeros((window, 0), dtype=np.uint8)
        """Last checks × ranks: what tells batches apart; two in 255 look alike. 0 where none was sent."""
        self.steps = np.full(window, -1, dtype=np.int64)
        self.checks = 0
        self.began = -1
        """Step of the first check: what was so then is taken to be as old as the run."""
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        digests = reading.values.get("batch_digest")
        if digests is None:
            return []
        self._grow(len(digests))
        if len(digests) < 2:
            return []
        present = reading.present["batch_digest"] & np.isfinite(digests)
        if present.sum() < 2:
            return []
        slot = self.checks % self.window
        if not self.checks:
            self.began = reading.step
        self.checks += 1
        self.steps[slot] = reading.step
        twice = _held_twice(digests, present)
        self.shared &= ~np.uint16(1 << slot)
        if np.count_nonzero(twice):
            self.shared[: len(digests)] |= twice.astype(np.uint16) << np.uint16(slot)
        self.batches[slot] = 0
        self.batches[slot, : len(digests)] = np.where(present, _short(digests), 0)
        if self.fired or np.count_nonzero(self.shared) < 2:
            return []
        alike = np.count_nonzero(self._checks(np.arange(len(self.shared))), axis=0) >= self.equal
        if np.count_nonzero(alike) < 2 or not self._varies(alike):
            return []
        self.fired = True
        return [self._finding(reading.step, np.flatnonzero(alike))]

    def status(self) -> Status:
        if len(self.shared) < 2:
            return Status("not_checked", "one rank, or batches that cannot be read without waiting for a device")
        if self.fired:
            return Status("alarm")
        return Status("ok" if self.checks >= self.equal else "warming_up")

    def _grow(self, ranks: int) -> None:
        if ranks > len(self.shared):
            self.shared = grown(self.shared, ranks)
            self.batches = grown(self.batches.T, ranks).T.copy()

    def _checks(self, ranks: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Last checks × ranks."""
        places = np.arange(self.window, dtype=np.uint16)[:, None]
        return np.asarray(self.shared[ranks] >> places & 1, dtype=bool)

    def _varies(self, alike: NDArray[np.bool_]) -> bool:
        first = self.batches[:, np.flatnonzero(alike)[0]]
        return len(np.unique(first[first > 0])) >= self.distinct

    def _finding(self, step: int, ranks: NDArray[np.int64]) -> Finding:
        seen = self._checks(ranks[:1])[:, 0]
        checks = min(self.checks, self.window)
        first = int(self.steps[seen].min())
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=0 if first == self.began else first,
            step=step,
            value=float(seen.sum() / checks),
            threshold=self.equal / self.window,
            evidence={"ranks": ranks.tolist(), "equal_checks": int(seen.sum()), "checks": checks},
        )


def _short(digests: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Eight bits of each, never 0 (multiplicative hashing: Knuth, The Art of Computer Programming 3, 6.4)."""
    words: NDArray[np.uint64] = digests.view(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return np.asarray(np.maximum(words >> np.uint64(56), 1), dtype=np.uint8)


def _held_twice(digests: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Per rank whether another present rank has the same digest."""
    ordered = np.sort(digests[present])
    if not np.count_nonzero(ordered[1:] == ordered[:-1]):  # a sixth of the time
        return np.zeros(len(digests), dtype=bool)
    _, inverse, counts = np.unique(digests[present], return_inverse=True, return_counts=True)
    held = np.zeros(len(digests), dtype=bool)
    held[present] = counts[inverse.reshape(-1)] > 1
    return held
