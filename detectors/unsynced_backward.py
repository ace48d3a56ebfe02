"""A step applied gradients that were never shared with the other ranks."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.gatherings import APART, FOUND, IN_CODE, PLAIN, POSSIBLE
from torchvitals.detectors.scalars import grown, scalar

MOST = 1 << 14
"""Steps in a row that are counted."""

Mask = NDArray[np.bool_]

WRAPPED = "no_sync_passes"
"""Told where a wrapper that shares gradients is around the model, and nothing that averages weights is known."""


class UnsyncedBackward:
    """No collective between the first backward and the optimizer's step, in a job that had them.

    Sharing is expected once ``established`` steps in a row had at least one collective: a sweep that trains one
    model per rank never has any. It is expected from the first step on where a wrapper that shares is around the
    model, of which ``no_sync_passes`` tells. But there ranks may train apart by intent and average their weights
    instead (LocalSGD in Accelerate is one loop under ``no_sync``): they have ``patience`` steps to come together,
    ``planned`` where the job's code plainly averages weights, and none where nothing in it could; after that what
    began with the first unshared step is told; once they have met, ``desync`` alone watches them.
    Steps of which ``trains_apart`` tells that they are not shared by intent have that patience later as well.
    Accumulation under ``no_sync`` is well as long as each optimizer step has one synchronised backward.
    PyTorch itself says nothing (pytorch#104336: ``.cpu()`` and back drops the hooks of DDP silently).

    >>> detector = UnsyncedBackward()
    >>> for step, count in enumerate([3, 4, 1, 1, 1, 0, 0, 0]):
    ...     for finding in detector.update(Reading.of(step, collectives=[count, count])):
    ...         print("step", finding.first_step, "rank", finding.rank)
    step 5 rank None

    Never shared, under a wrapper:

    >>> detector = UnsyncedBackward()
    >>> for step in range(200):
    ...     for finding in detector.update(Reading.of(step, collectives=[0, 0], no_sync_passes=[0, 0])):
    ...         print("step", finding.first_step, "certain at", finding.step)
    step 0 certain at 99

    The same where no line of the job's code could average weights:

    >>> detector = UnsyncedBackward()
    >>> for step in range(200):
    ...     read = {"collectives": [0, 0], "no_sync_passes": [0, 0], "averaging_in_code": [0, 0]}
    ...     for finding in detector.update(Reading.of(step, **read)):
    ...         print("step", finding.first_step, "certain at", finding.step)
    step 0 certain at 2
    """

    kind: ClassVar[str] = "unsynced_backward"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("collectives", WRAPPED, APART, IN_CODE, FOUND)

    def __init__(
        self,
        *,
        established: int = 3,  # one logged all-reduce in an unshared job is not sharing; three steps in a row are
        patience: int = 100,  # steps: averaging is published with 4 to 64 in between, where a wrapper is used
        planned: int = 512,  # DiLoCo was published with 500 between two averages
    ) -> None:
        self.established, self.planned = established, planned
        self.patience = [established, patience, planned]
        """Steps, by what the code says of averaging."""
        self._code = POSSIBLE
        """The most that any rank's code says; where nobody says anything it is possible."""
        self.synced = np.zeros(0, dtype=np.int16)
        """Per rank, synchronised steps in a row, as far as they are counted; held once established."""
        self.fired = False
        self._since = np.zeros(0, dtype=np.int32)
        """Per rank the first of the unshared steps in a row; -1 where the last was shared."""
        self._wrapped = False
        """Whether a wrapper should have shared them: it may be met in the second step only."""
        self._newest: tuple[int, Mask, Mask] | None = None
        """The newest of them, who shared nothing in it, and of whom."""
        self._averaged = False

    def update(self, reading: Reading) -> list[Finding]:
        counts = reading.values.get("collectives")
        if counts is None or len(counts) < 2:  # alone there is nobody to share with
            return []
        present = reading.present["collectives"]
        self._grow(len(counts))
        expected = self.synced[: len(counts)] >= self.established
        silent = present & (counts == 0)
        shared = present & (counts > 0)
        self.synced[: len(counts)] += shared & (self.synced[: len(counts)] < MOST)
        self.synced[: len(counts)][silent & ~expected] = 0
        if self.fired:
            return []
        self._await(reading, silent, present)
        ranks = len(counts)
        at_once = silent & expected & ~scalar(reading, APART, ranks)[1] & (self._code < PLAIN)
        # Steps that were only counted do not tell whether it is by intent, unless it cannot be.
        certain = scalar(reading, WRAPPED, ranks)[1] | (not self._wrapped) | (self._code < POSSIBLE)
        if (at_once & certain).any():
            self.fired = True
            return [self._finding(int(self._since[:ranks][at_once].min()), reading.step, at_once, present)]
        return self._told(self.patience[self._code])

    def conclude(self) -> list[Finding]:
        """Ranks that have never come together have had all the time there was."""
        return [] if self.fired else self._told(self.planned if self._code == PLAIN else self.established)

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
            self.synced, self._since = grown(self.synced, ranks), grown(self._since, ranks, -1)

    def _await(self, reading: Reading, silent: Mask, present: Mask) -> None:
        """Since when ranks share nothing although a wrapper would."""
        ranks = len(silent)
        found, told = scalar(reading, FOUND, ranks)
        if np.count_nonzero(told) > 1:
            self._averaged |= bool((found[told] == found[told][0]).all())
        self._wrapped |= bool(scalar(reading, WRAPPED, ranks)[1].any())
        code, said = scalar(reading, IN_CODE, ranks)
        if said.any():
            possible = bool((code[said] >= POSSIBLE).any())
            self._code = PLAIN if (code[said] >= PLAIN).any() else POSSIBLE if possible else 0
        since = self._since[:ranks]
        since[silent & (since < 0)] = reading.step
        since[present & ~silent] = -1
        if silent.any():
            self._newest = reading.step, silent, present

    def _told(self, patience: int) -> list[Finding]:
        waiting = self._since[self._since >= 0]
        if not self._wrapped or self._averaged or self._newest is None or not len(waiting):
            return []
        step, silent, present = self._newest
        first = int(waiting.min())
        if step - first + 1 < patience:
            return []
        self.fired = True
        return [self._finding(first, step, silent, present)]

    def _finding(self, first: int, step: int, silent: Mask, present: Mask) -> Finding:
        ranks = np.flatnonzero(silent)
        alone = len(ranks) == 1 and present.sum() > 1
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=first,
            step=step,
            value=0.0,
            threshold=1.0,
            subject=int(ranks[0]) if alone else None,
            evidence={"ranks": ranks.tolist(), "synced_steps_before": int(self.synced[ranks].min())},
        )
