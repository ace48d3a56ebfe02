"""Ranks train on the same batches: the cluster pays for each of them and learns from one."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status


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
        self.shared = np.zeros((0, window), dtype=bool)
        """Ranks × last checks: whether another rank had the same batch."""
        self.batches = np.full((0, window), np.nan)
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
        self.shared[:, slot] = False
        self.batches[:, slot] = np.nan
        self.shared[: len(digests), slot] = _held_twice(digests, present)
        self.batches[: len(digests), slot] = np.where(present, digests, np.nan)
        alike = self.shared.sum(axis=1) >= self.equal
        if self.fired or alike.sum() < 2 or not self._varies(alike):
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
        new = ranks - len(self.shared)
        if new > 0:
            self.shared = np.concatenate([self.shared, np.zeros((new, self.window), dtype=bool)])
            self.batches = np.concatenate([self.batches, np.full((new, self.window), np.nan)])

    def _varies(self, alike: NDArray[np.bool_]) -> bool:
        first = self.batches[np.flatnonzero(alike)[0]]
        return len(np.unique(first[np.isfinite(first)])) >= self.distinct

    def _finding(self, step: int, ranks: NDArray[np.int64]) -> Finding:
        seen = self.shared[ranks[0]]
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


def _held_twice(digests: NDArray[np.float64], present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Per rank whether another present rank has the same digest."""
    _, inverse, counts = np.unique(digests[present], return_inverse=True, return_counts=True)
    held = np.zeros(len(digests), dtype=bool)
    held[present] = counts[inverse.reshape(-1)] > 1
    return held
