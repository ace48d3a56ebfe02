"""The running statistics of BatchNorm differ between ranks by more than batches do."""

from collections import deque
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

LARGEST = 1e30
"""What is larger is a blow-up, which others tell of."""
MEAN, VARIANCE, LAYER = "buffer_mean", "buffer_variance", "buffer_layer"


class Look(NamedTuple):
    """One look at the ranks' statistics: rank × channel."""

    step: int
    ranks: NDArray[np.int64]
    layer: Floats
    """Ascending; of each channel."""
    distance: Singles
    ratio: Singles

    def like(self, other: "Look") -> bool:
        """Whether both are of the same ranks and channels."""
        return np.array_equal(self.ranks, other.ranks) and np.array_equal(self.layer, other.layer)


class BufferSpread:
    """Of each layer the distance of every rank from the others, in units of what the layer normalises by.

    Equality is not owed. The running mean of a rank is that of its own batches and strays from the others' by the
    noise of a few batches: 0.23 standard deviations over the root of what a batch holds, at the usual momentum.
    The median over ``looks`` looks has half of that left, for noise changes its sign. A rank that sees other data,
    or a layer that is in evaluation mode or forgets at another pace on one rank, strays by whole standard
    deviations, or has another variance. With buffers broadcast at every forward, as is the default, less than a
    tenth of all that remains, and what remains does no harm.

    Source: pytorch#13711, #30718: BatchNorm under DDP.

    >>> detector = BufferSpread()
    >>> noise = np.random.default_rng(0)
    >>> for step in range(39, 400, 40):
    ...     mean = 0.05 * noise.normal(size=(4, 6)) + [[0], [0], [2.0 * (step > 200)], [0]]
    ...     values = {"buffer_mean": mean, "buffer_variance": np.ones((4, 6)), "buffer_layer": np.zeros((4, 6))}
    ...     for finding in detector.update(Reading(step, 0.0, values, dict.fromkeys(values, np.ones(4, dtype=bool)))):
    ...         print("rank", finding.rank, "since", finding.first_step, "certain at", finding.step)
    rank 2 since 239 certain at 279
    """

    kind: ClassVar[str] = "desync"
    axis: ClassVar[DetectorAxis] = "replica"
    reads: ClassVar[tuple[str, ...]] = (MEAN, VARIANCE, LAYER)

    def __init__(
        self,
        *,
        distance: float = 0.6,  # standard deviations, root mean square over a layer's channels; two ranks with batches
        # of four vectors stray by 0.16 in one look
        ratio: float = 1.0,  # mean logarithm of the ratio of variances: a factor of 2.7
        looks: int = 4,  # whose median is judged
        jury: int = 3,  # with two ranks there is no majority
        smallest: float = 1e-10,  # a variance: a channel that is constant has no unit to measure by
    ) -> None:
        self.distance, self.ratio = distance, ratio
        self.looks, self.jury, self.smallest = looks, jury, smallest
        self._seen: deque[Look] = deque(maxlen=looks)
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
        if not mean.size or (layer != layer[0]).any() or (np.diff(layer[0]) < 0).any():
            return []
        self.compared = max(self.compared, len(ranks))
        look = Look(reading.step, ranks, layer[0], *self._strays(mean, variance))
        if self._seen and not look.like(self._seen[-1]):
            self._seen.clear()
        self._seen.append(look)
        return self._judge(look) if len(self._seen) == self.looks else []

    def status(self) -> Status:
        if self.compared < 2:
            return Status("not_checked", "no two ranks sent running statistics: no BatchNorm, or one rank")
        if self.fired:
            return Status("alarm")
        if len(self._seen) < self.looks:
            return Status("warming_up", f"{len(self._seen)} of {self.looks} looks at running statistics")
        return Status("ok")

    def _strays(self, mean: Floats, variance: Floats) -> tuple[Singles, Singles]:
        """How far each rank's mean lies off, in deviations, and its variance, in logarithms; both signed.

        What is not finite, which other detectors tell of, strays by nothing.
        """
        sound = (np.isfinite(mean) & (np.abs(mean) < LARGEST) & (variance > self.smallest) & (variance < LARGEST)).all(
            0
        )
        mean, variance = np.where(sound, mean, 0.0), np.where(sound, variance, 1.0)
        # Of two ranks each is measured by the other.
        centre, unit = (each[::-1] if len(each) == 2 else np.median(each, axis=0) for each in (mean, variance))
        return ((mean - centre) / np.sqrt(unit)).astype(np.float32), np.log(variance / unit).astype(np.float32)

    def _judge(self, look: "Look") -> list[Finding]:
        """The median over the looks: noise changes its sign from one to the next."""
        scores = self._by_layer(look.layer, *(np.median(each, axis=0) for each in self._strayed()))
        if not scores.max(initial=0.0) > 1.0:
            return []
        self.fired = True
        odd = np.flatnonzero((scores > 1.0).any(axis=1))
        first = int(np.flatnonzero((scores > 1.0).any(axis=0))[0])
        return [self._finding(look, odd, float(scores.max()), first)]

    def _strayed(self) -> tuple[Singles, Singles]:
        return np.stack([look.distance for look in self._seen]), np.stack([look.ratio for look in self._seen])

    def _by_layer(self, layer: Floats, distance: Singles, ratio: Singles) -> Floats:
        """Rank × layer: the larger of distance (root mean square) and ratio (mean) over its limit."""
        _, starts = np.unique(layer, return_index=True)
        counts = np.diff(np.append(starts, len(layer)))
        far = np.sqrt(np.add.reduceat(distance.astype(np.float64) ** 2, starts, axis=1) / counts)
        wide = np.abs(np.add.reduceat(ratio.astype(np.float64), starts, axis=1)) / counts
        return np.asarray(np.maximum(far / self.distance, wide / self.ratio))

    def _finding(self, look: "Look", odd: NDArray[np.int64], value: float, layer: int) -> Finding:
        ranks = look.ranks
        strays = ((each, self._by_layer(each.layer, each.distance, each.ratio).max()) for each in self._seen)
        since = next((each.step for each, stray in strays if stray > 1.0), look.step)
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
            step=look.step,
            value=value,
            threshold=1.0,
            subject=int(np.unique(look.layer, return_index=True)[1][layer]),
            rank=int(ranks[odd[0]]) if named and len(odd) == 1 else None,
            evidence=evidence,
        )


def _rows(present: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which ranks are there, whole."""
    return np.asarray(present.reshape(len(present), -1).all(axis=1))
