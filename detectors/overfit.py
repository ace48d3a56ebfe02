"""The model learns its training data by heart: validation gets worse while training gets better."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import Floats, Mask, grown, losses, scalar, shortest, single, subjects_of

REMEMBERED = 32
"""Evaluations that say how much a single one wavers."""
MOST = 1 << 14
"""Evaluations that are counted."""
BEND = np.sqrt(6) * np.sqrt(2 / np.pi)
"""Mean bend of independent normal numbers with unit variance."""


class Overfit:
    """The validation loss has turned and keeps rising while the training loss keeps falling.

    An evaluation is a step that sends ``validation_loss`` (logged, or found in the job: hooks/validation.py); the
    training loss beside it is the mean of the steps since the one before. Evaluations are noisy, and the best of many
    is a lucky one, so medians of three are compared. Four keys: ``patience`` of them in a row lie above the lowest
    by more than ``worse``; they still rise by ``rising``; and the training loss has fallen below ``falling`` of
    what it was at the lowest; and all this is ``noise`` times larger than single evaluations waver. The onset is the
    best evaluation.

    A validation loss of zero or less has no scale and is left alone.

    >>> detector = Overfit()
    >>> for step in range(200):
    ...     epoch = step // 10
    ...     evaluation = {"validation_loss": 0.5 + 0.05 * abs(epoch - 5)} if step % 10 == 9 else {}
    ...     for finding in detector.update(Reading.of(step, loss=0.8**epoch, **evaluation)):
    ...         print(finding.first_step, finding.step, round(finding.value, 2))
    59 169 1.0
    """

    kind: ClassVar[str] = "overfit"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("validation_loss", "loss")

    def __init__(
        self,
        *,
        patience: int = 6,  # evaluations, of which each median shares two with its neighbour
        worse: float = 1.3,  # of the lowest: of losses that waver by 15 %, medians of three rarely lie so high for long
        lasting: float = 0.25,  # of all evaluations so far, if that is more: the best of a hundred is a very lucky one
        rising: float = 1.05,  # within twice as many at most: a level is no rise
        noise: float = 3.5,  # standard deviations of one evaluation's logarithm; of a median of three it is five
        falling: float = 0.7,  # of the training loss at the lowest: less is its own noise, and nothing learnt by heart
    ) -> None:
        self.patience, self.worse, self.lasting, self.rising = patience, worse, lasting, rising
        self.falling, self.noise = falling, noise
        self.mean = np.zeros(0, dtype=np.float32)
        """Of the training losses since the last evaluation, and their number."""
        self.number = np.zeros(0, dtype=np.uint16)
        self.best = np.zeros((0, 2), dtype=np.float32)
        """At the lowest median: itself, and the training loss."""
        self.lowest = np.zeros(0, dtype=np.float32)
        """The lowest single evaluation and its step."""
        self.since = np.full(0, -1, dtype=np.int32)
        self.newest = np.zeros((0, 3), dtype=np.float32)
        self.bend = np.zeros(0, dtype=np.float16)
        """Of the logarithm of the evaluations: mean bend (second difference), and the number it is taken from."""
        self.bends = np.zeros(0, dtype=np.uint8)
        self.marks = np.zeros((0, 2), dtype=np.float32)
        """The newest median of which the number is a multiple of ``patience``, and the one before."""
        self.count = np.zeros(0, dtype=np.int16)
        """Evaluations in a row that are too far above the best."""
        self.seen = np.zeros(0, dtype=np.int16)
        self.fired = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        self._grow(subjects)
        _, loss, _, use, _ = losses(reading, subjects)
        self.number += use & (self.number < MOST)  # of more than so many the newest
        np.add(self.mean, (loss - self.mean) / np.maximum(self.number, 1), out=self.mean, where=use)
        if "validation_loss" not in reading.values:
            return []
        value, sent = scalar(reading, "validation_loss", subjects)
        due = sent & np.isfinite(value) & (value > 0) & (self.number > 0)
        return self._evaluate(reading.step, value, due) if due.any() else []

    def status(self) -> Status:
        if not self.seen.any():
            return Status("not_checked", "no validation loss was logged or found: monitor.log(validation_loss=...)")
        if self.fired.any():
            return Status("alarm")
        missing = self.patience + 2 - int(self.seen.max())
        return Status("warming_up", f"{missing} more evaluations needed") if missing > 0 else Status("ok")

    def _evaluate(self, step: int, value: Floats, due: Mask) -> list[Finding]:
        training = self.mean.copy()
        self.seen += due & (self.seen < MOST)
        evaluated = single(value)
        low = due & ~(evaluated >= self.lowest)
        self.lowest[low], self.since[low] = evaluated[low], step
        self.newest[due] = np.roll(self.newest[due], -1, axis=1)
        self.newest[due, -1] = evaluated[due]
        worse = np.maximum(np.log(self.worse), self.noise * self._wavers(due))
        value = np.median(self.newest, axis=1)  # infinite until there are two
        better = due & (value < self.best[:, 0])
        self.best[better] = single(np.stack([value, training], axis=1)[better])
        high = due & (np.log(value) > worse + np.log(self.best[:, 0]))
        self.count = np.where(due, np.where(high, np.minimum(self.count, MOST) + 1, 0), self.count)
        turn = due & (self.seen % self.patience == 0)
        before = np.where(np.isinf(self.marks[turn, 1]), value[turn], self.marks[turn, 1])
        self.marks[turn] = np.stack([before, value[turn]], axis=1)
        self.mean[due] = self.number[due] = 0
        rising = value > self.rising * self.marks[:, 0]
        learnt = (training > 0) & (training < self.falling * self.best[:, 1])
        certain = (
            high & (self.count >= np.maximum(self.patience, self.lasting * self.seen)) & rising & learnt & ~self.fired
        )
        self.fired |= certain
        return [
            self._finding(int(row), step, shortest(value[row]), float(training[row])) for row in np.flatnonzero(certain)
        ]

    def _wavers(self, due: Mask) -> Floats:
        """Standard deviation of the logarithm of one evaluation, from bends: a line has none, however steep."""
        known = np.flatnonzero(due & np.isfinite(self.newest).all(axis=1))
        logs = np.log(self.newest[known])
        bend = np.abs(logs[:, 0] - 2 * logs[:, 1] + logs[:, 2])
        self.bends[known] = np.minimum(self.bends[known] + 1, REMEMBERED)
        self.bend[known] += (bend - self.bend[known]) / self.bends[known]
        wavers: Floats = self.bend.astype(np.float64) / BEND
        return wavers

    def _finding(self, row: int, step: int, value: float, training: float) -> Finding:
        best, before = (shortest(each) for each in self.best[row])
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(self.since[row]),
            step=step,
            value=value,
            threshold=self.worse * best,
            subject=row,
            evidence={
                "best": best,
                "training_then": before,
                "training_now": training,
                "evaluations": int(self.seen[row]),
            },
        )

    def _grow(self, subjects: int) -> None:
        new = subjects - len(self.fired)
        if new <= 0:
            return
        self.mean, self.number = grown(self.mean, subjects), grown(self.number, subjects)
        fresh = np.tile(np.array([np.inf, np.nan], dtype=np.float32), (new, 1))
        self.best = np.concatenate([self.best, fresh])
        self.lowest, self.since = grown(self.lowest, subjects, np.inf), grown(self.since, subjects, -1)
        self.bends, self.newest = grown(self.bends, subjects), grown(self.newest, subjects, np.inf)
        self.bend = grown(self.bend, subjects)
        self.marks, self.count = grown(self.marks, subjects, np.inf), grown(self.count, subjects)
        self.seen, self.fired = grown(self.seen, subjects), grown(self.fired, subjects)
