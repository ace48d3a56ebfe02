"""The running statistics of BatchNorm differ between ranks by more than batches do."""

from collections import deque
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status

Floats = NDArray[np.float64]

LARGEST = 1e30
"""What is larger is a blow-up, which others tell of."""
MEAN, VARIANCE, LAYER = "buffer_mean", "buffer_variance", "buffer_layer"


class BufferSpread:
    """Of each layer the distance of every rank from the others, in units of what the layer normalises by.

    Equality is not owed. The running mean of a rank is that of its own batches and strays from the others' by the
    noise of a few batches: 0.23 standard deviations over the root of what a batch holds, at the usual momentum.
    It must stray in all but one of the last ``looks`` looks. A rank that sees other data, a layer that is in evaluation
    mode or forgets at another pace on one rank, strays by whole standard deviations, or has another variance. With
    buffers broadcast at every forward, as is the default, less than a tenth of all that remains, and what remains
    does no harm.

    Source: pytorch#13711, #30718: BatchNorm under DDP.

    >>> detector = BufferSpread()
    >>> noise = np.random.default_rng(0)
    >>> for step in range(39, 400, 40):
    ...     mean = 0.05 * noise.normal(size=(4, 6)) + [[0], [0], [2.0 * (step > 200)], [0]]
    ...     values = {"buffer_mean": mean, "buffer_variance": np.ones((4, 6)), "buffer_layer": np.zeros((4, 6))}
    ...     for finding in detector.update(Reading(step, 0.0, values, dict.fromkeys(values, np.ones(4, dtype=bool)))):
    ...         print("rank", finding.rank, "since", finding.first_step, "certain at", finding.step)
    rank 2 since 239 certain at 319
    """

    kind: ClassVar[str] = "desync"
    axis: ClassVar[DetectorAxis] = "replica"
    reads: ClassVar[tuple[str, ...]] = (MEAN, VARIANCE, LAYER)

    def __init__(
        self,
        *,
        distance: float = 0.6,  # standard deviations, root mean square over a layer's channels; two ranks with batches
        # of four vectors stray by 0.16, with a momentum of 1 and batches of eight by 0.5
        ratio: float = 1.0,  # mean absolute logarithm of the ratio of variances: a factor of 2.7
        looks: int = 4,  # that are judged; one may be other than the rest
        jury: int = 3,  # with two ranks there is no majority
        smallest: float = 1e-10,  # a variance: a channel that is constant has no unit to measure by
    ) -> None:
        self.distance, self.ratio = distance, ratio
        self.looks, self.jury, self.smallest = looks, jury, smallest
        self._scores: deque[tuple[int, NDArray[np.int64], Floats]] = deque(maxlen=looks)
        """Step, ranks, and rank × layer: the larger of distance and ratio over its limit."""
        self.fired = False
        self.compared = 0

    def __repr__(self) -> str:
        return f"BufferSpread(distance={self.distance}, ratio={self.ratio})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one look."""
        if any(name not in reading.values for name in self.reads) or self.fired:
            return []
        ranks = np.flatnonzero(np.all([_rows(reading.present[name]) for name in self.reads], axis=0))
        if len(ranks) < 2:
            return []
        mean, variance, layer = (np.asarray(reading.values[name], np.float64)[ranks] for name in self.reads)
        if not mean.size or (layer != layer[0]).any():
            return []
        self.compared = max(self.compared, len(ranks))
        scores = self._score(mean, variance, layer[0])
        if self._scores and not self._like_the_last(ranks, scores):
            self._scores.clear()
        self._scores.append((reading.step, ranks, scores))
        return self._judge(reading.step, ranks, layer[0]) if len(self._scores) == self.looks else []

    def status(self) -> Status:
        if self.compared < 2:
            return Status("not_checked", "no two ranks sent running statistics: no BatchNorm, or one rank")
        if self.fired:
            return Status("alarm")
        if len(self._scores) < self.looks:
            return Status("warming_up", f"{len(self._scores)} of {self.looks} looks at running statistics")
        return Status("ok")

    def _score(self, mean: Floats, variance: Floats, layer: Floats) -> Floats:
        """Rank × layer; NaN and infinity, which other detectors tell of, stray by nothing."""
        usable = np.isfinite(mean).all(axis=0) & np.isfinite(variance).all(axis=0)
        usable &= ((variance > self.smallest) & (variance < LARGEST) & (np.abs(mean) < LARGEST)).all(axis=0)
        numbers = np.unique(layer[usable])
        scores = np.zeros((len(mean), len(numbers)))
        for rank in range(len(mean)):
            others = np.delete(np.arange(len(mean)), rank)
            centre, unit = np.median(mean[others], axis=0), np.median(variance[others], axis=0)
            unit = np.where(usable, unit, 1.0)
            far = np.where(usable, (mean[rank] - centre) ** 2 / unit, 0.0)
            wide = np.abs(np.log(np.where(usable, variance[rank], 1.0) / unit))
            for column, number in enumerate(numbers):
                mine = usable & (layer == number)
                distance = float(np.sqrt(far[mine].mean())) / self.distance
                scores[rank, column] = max(distance, float(wide[mine].mean()) / self.ratio)
        return scores

    def _judge(self, step: int, ranks: NDArray[np.int64], layer: Floats) -> list[Finding]:
        table = np.stack([scores for _, _, scores in self._scores])
        usual = np.sort(table, axis=0)[1]  # in all looks but one
        if not usual.size or not usual.max() > 1.0:
            return []
        self.fired = True
        odd = np.flatnonzero((usual > 1.0).any(axis=1))
        first = int(np.flatnonzero((usual > 1.0).any(axis=0))[0])
        subject = int(np.flatnonzero(layer == np.unique(layer)[first])[0])
        return [self._finding(step, ranks, odd, float(usual.max()), subject)]

    def _like_the_last(self, ranks: NDArray[np.int64], scores: Floats) -> bool:
        _, before, last = self._scores[-1]
        return np.array_equal(before, ranks) and last.shape == scores.shape

    def _finding(
        self, step: int, ranks: NDArray[np.int64], odd: NDArray[np.int64], value: float, subject: int
    ) -> Finding:
        since = next(at for at, _, scores in self._scores if scores.max() > 1.0)
        named = len(ranks) >= self.jury and 2 * len(odd) < len(ranks)
        evidence: dict[str, Any] = {
            "what": "buffers",
            "ranks_compared": len(ranks),
            "minority": ranks[odd].tolist() if named else None,
            "times_the_limit": value,
            "limit_deviations": self.distance,
        }
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=since,
            step=step,
            value=value,
            threshold=1.0,
            subject=subject,
            rank=int(ranks[odd[0]]) if named and len(odd) == 1 else None,
            evidence=evidence,
        )


def _rows(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which ranks are there, whole."""
    return np.asarray(present.reshape(len(present), -1).all(axis=1))
