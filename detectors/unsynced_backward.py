"""A step applied gradients that were never shared with the other ranks."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status


class UnsyncedBackward:
    """No collective between the first backward and the optimizer's step, in a job that had them.

    Sharing is expected once ``established`` steps in a row had at least one collective: a sweep that trains one
    model per rank never has any, and a job that averages by hand after the step is told by ``desync`` alone.
    Accumulation under ``no_sync`` is well as long as each optimizer step has one synchronised backward.
    PyTorch itself says nothing (pytorch#104336: ``.cpu()`` and back drops the hooks of DDP silently).

    >>> detector = UnsyncedBackward()
    >>> for step, count in enumerate([3, 4, 1, 1, 1, 0, 0, 0]):
    ...     for finding in detector.update(Reading.of(step, collectives=[count, count])):
    ...         print("step", finding.first_step, "rank", finding.rank)
    step 5 rank None
    """

    kind: ClassVar[str] = "unsynced_backward"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("collectives",)

    def __init__(
        self,
        *,
        established: int = 3,  # one logged all-reduce in an unshared job is not sharing; three steps in a row are
    ) -> None:
        self.established = established
        self.synced = np.zeros(0, dtype=np.int64)
        """Per rank, synchronised steps in a row; held once established."""
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        counts = reading.values.get("collectives")
        if counts is None or len(counts) < 2:  # alone there is nobody to share with
            return []
        present = reading.present["collectives"]
        self._grow(len(counts))
        expected = self.synced[: len(counts)] >= self.established
        silent = present & expected & (counts == 0)
        shared = present & (counts > 0)
        self.synced[: len(counts)][shared] += 1
        self.synced[: len(counts)][present & ~expected & (counts == 0)] = 0
        if self.fired or not silent.any() or len(self.synced) < 2:
            return []
        self.fired = True
        return [self._finding(reading.step, silent, present)]

    def status(self) -> Status:
        if len(self.synced) < 2:
            return Status("not_checked", "one rank, or its collectives cannot be counted")
        if self.fired:
            return Status("alarm")
        if not (self.synced >= self.established).any():
            return Status("warming_up", "no gradient has been shared so far")
        return Status("ok")

    def _grow(self, ranks: int) -> None:
        if ranks > len(self.synced):
            self.synced = np.concatenate([self.synced, np.zeros(ranks - len(self.synced), dtype=np.int64)])

    def _finding(self, step: int, silent: NDArray[np.bool_], present: NDArray[np.bool_]) -> Finding:
        ranks = np.flatnonzero(silent)
        alone = len(ranks) == 1 and present.sum() > 1
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=step,
            step=step,
            value=0.0,
            threshold=1.0,
            subject=int(ranks[0]) if alone else None,
            evidence={"ranks": ranks.tolist(), "synced_steps_before": int(self.synced[ranks].min())},
        )
