"""Lost progress: weights were written to between two steps, and the loss is back near where it began."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import Floats, grown, scalar, subjects_of


class LostProgress:
    """Two keys. Something other than the optimizer wrote to ``most`` of the weights just before this step, which the
    version counters of the weights say exactly; and of what the loss had come down since the start more than ``lost``
    is gone in the steps that follow.

    Loading the best checkpoint, swapping averaged weights in and out and clipping weights write as well, and lose
    nothing. A job that writes at more than ``share`` of its steps does so by habit, and ranks that average theirs
    (LocalSGD, DiLoCo) by plan, whatever it does to the loss.

    Args:
        most: share of the weights looked at; one layer that is calibrated is not the model.
        window: losses before, whose median is what had been reached.
        follow: losses from the writing on, whose median must be high: one bad batch is none of this.
        lost: share of the progress.
        progress: share of the first loss that must have been gained before; else there is nothing to lose.
        share: of the steps.

    >>> detector = LostProgress()
    >>> for step in range(120):
    ...     loss = 2.3 - 0.02 * min(step, 79) if step < 80 else 2.2
    ...     written = {"weights_overwritten": 1.0} if step == 80 else {}
    ...     for finding in detector.update(Reading.of(step, loss=loss, **written)):
    ...         print(finding.step, finding.first_step, round(finding.value, 1))
    82 80 2.2
    """

    kind: ClassVar[str] = "lost_progress"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "weights_overwritten", "parameter_sum_found")

    def __init__(
        self,
        *,
        most: float = 0.6,
        window: int = 16,
        follow: int = 3,
        lost: float = 0.5,
        progress: float = 0.2,
        share: float = 0.05,
    ) -> None:
        self.most, self.window, self.follow, self.lost, self.progress, self.share = (
            most,
            window,
            follow,
            lost,
            progress,
            share,
        )
        self._ring = np.full((0, window + follow), np.nan)
        """Per rank its newest losses, the latest last."""
        self._count = np.zeros(0, dtype=np.int64)
        self._start = np.zeros((0, window))
        """Its first losses: a fresh net may begin anywhere, and a batch says little."""
        self._written = np.zeros(0, dtype=np.int64)
        self._since = np.full(0, -1, dtype=np.int64)
        """Losses seen since the writing; -1 while there is none to judge."""
        self._step = np.zeros(0, dtype=np.int64)
        self._told = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        ranks = subjects_of(reading, self.reads)
        self._grow(ranks)
        loss, sent = scalar(reading, "loss", ranks)
        written, told = scalar(reading, "weights_overwritten", ranks)
        averaged = scalar(reading, "parameter_sum_found", ranks)[1]
        written_now = told & (written >= self.most) & ~averaged
        self._written[:ranks] += written_now
        self._since[:ranks][written_now] = 0
        self._step[:ranks][written_now] = reading.step
        rows = np.flatnonzero(sent & np.isfinite(loss))
        self._remember(rows, loss)
        due = rows[self._since[rows] == self.follow]
        return self._judge(reading.step, due)

    def status(self) -> Status:
        if not self._count.any():
            return Status("not_checked", "no loss was seen")
        if self._told.any():
            return Status("alarm")
        needed = 2 * self.window
        seen = int(self._count.max())
        return Status("ok") if seen >= needed else Status("warming_up", f"{seen} of {needed} losses")

    def _remember(self, rows: NDArray[np.intp], loss: Floats) -> None:
        early = rows[self._count[rows] < self.window]
        self._start[early, self._count[early]] = loss[early]
        self._ring[rows, :-1] = self._ring[rows, 1:]
        self._ring[rows, -1] = loss[rows]
        self._count[rows] += 1
        self._since[rows[self._since[rows] >= 0]] += 1

    def _judge(self, step: int, due: NDArray[np.intp]) -> list[Finding]:
        self._since[due] = -1
        found = []
        for rank in due[(self._count[due] >= 2 * self.window) & ~self._told[due]].tolist():
            first = float(np.median(self._start[rank]))
            before = float(np.median(self._ring[rank, : self.window]))
            after = float(np.median(self._ring[rank, self.window :]))
            gained = first - before
            habit = self._written[rank] > max(2.0, self.share * self._count[rank])
            if habit or not gained > self.progress * abs(first) or not after - before > self.lost * gained:
                continue
            self._told[rank] = True
            found.append(self._finding(step, rank, (first, before, after)))
        return found

    def _finding(self, step: int, rank: int, losses: tuple[float, float, float]) -> Finding:
        first, before, after = losses
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self._step[rank]),
            step=step,
            value=after,
            threshold=before + self.lost * (first - before),
            subject=rank,
            evidence={"before": before, "start": first},
        )

    def _grow(self, ranks: int) -> None:
        self._ring = grown(self._ring, ranks, np.nan)
        self._start, self._count = grown(self._start, ranks), grown(self._count, ranks)
        self._written, self._since = grown(self._written, ranks), grown(self._since, ranks, -1)
        self._step, self._told = grown(self._step, ranks), grown(self._told, ranks)
