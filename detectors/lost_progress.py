"""Lost progress: weights were written to between two steps, and the loss is back near where it began."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import LossPast, past_of
from torchvitals.detectors.ring import Rows
from torchvitals.detectors.scalars import Mask, grown, scalar, shortest, subjects_of


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
    reads: ClassVar[tuple[str, ...]] = ("loss", "weights_overwritten", "parameter_sum_found", "skipped_steps")

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
        self._past = LossPast()
        self._start = np.zeros(0, dtype=np.float32)
        """Per rank the median of its first losses: a fresh net may begin anywhere, and a batch says little."""
        self._written = np.zeros(0, dtype=np.int32)
        """Times that weights were written to, and the newest step; of ranks up to the last that this happened to."""
        self._step = np.zeros(0, dtype=np.int32)
        self._since = np.full(0, -1, dtype=np.int8)
        """Losses seen since the writing; -1 while there is none to judge."""
        self._awaited = False
        """Whether anybody's are awaited."""
        self._young = False
        """Whether anybody may still send one of its first."""
        self._told = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        ranks = max(len(self._told), subjects_of(reading, self.reads))
        self._grow(ranks)
        self._past = past_of(reading, ranks, self._past)
        if "weights_overwritten" in reading.values:
            written, _ = scalar(reading, "weights_overwritten", ranks)
            averaged = scalar(reading, "parameter_sum_found", ranks)[1]
            self._overwritten(reading.step, (written >= self.most) & ~averaged)
        rows = self._past.rows
        if self._young:
            self._begin(rows)
        if not self._awaited:
            return []
        awaiting = np.arange(ranks)[rows]
        awaiting = awaiting[self._since[awaiting] >= 0]
        self._since[awaiting] += 1
        return self._judge(reading.step, awaiting[self._since[awaiting] == self.follow])

    def status(self) -> Status:
        if not self._past.count.any():
            return Status("not_checked", "no loss was seen")
        if self._told.any():
            return Status("alarm")
        needed = 2 * self.window
        seen = int(self._past.count.max())
        return Status("ok") if seen >= needed else Status("warming_up", f"{seen} of {needed} losses")

    def _overwritten(self, step: int, now: Mask) -> None:
        """Note whose weights were written to just before this step."""
        ranks = now.nonzero()[0]
        if not len(ranks):
            return
        self._written, self._step = grown(self._written, len(now)), grown(self._step, len(now))
        self._written[ranks] += 1
        self._since[ranks], self._step[ranks] = 0, step
        self._awaited = True

    def _begin(self, rows: Rows) -> None:
        """Note what the first losses were."""
        count = self._past.count
        places = np.arange(len(count))[rows]
        begun = places[count[places] == self.window]
        self._start[begun] = row_median(self._past.newest(begun, self.window).T)
        self._young = bool((count < self.window).any())

    def _judge(self, step: int, due: NDArray[np.intp]) -> list[Finding]:
        self._since[due] = -1
        self._awaited = bool((self._since >= 0).any())
        count = self._past.count
        found = []
        for rank in due[(count[due] >= 2 * self.window) & ~self._told[due]].tolist():
            newest = self._past.of(rank, self.window + self.follow)
            first = shortest(self._start[rank])
            before, after = shortest(np.median(newest[: self.window])), shortest(np.median(newest[self.window :]))
            gained = first - before
            habit = self._written[rank] > max(2.0, self.share * count[rank])
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
        if ranks <= len(self._told):
            return
        self._young = True
        self._start = grown(self._start, ranks)
        self._since, self._told = grown(self._since, ranks, -1), grown(self._told, ranks)
