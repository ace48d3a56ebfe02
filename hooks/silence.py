"""Which units have been silent for improbably long, judged by how often each of them used to speak.

A unit that was zero for one batch is no dead unit: with batch size 1 and 90 % sparsity nine in ten are. So
each unit is compared with its own past: one active in a share *a* of the samples is silent for *r* samples
in a row by chance with probability (1 - a)^r.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torchvitals.signals.records import ABSENT


class Silence:
    """Runs of silence of many units, grouped in segments (one per layer). State is three numbers per unit.

    Args:
        chance: a unit counts as silent when its run would happen with less than this probability.
        least: but never before this many samples, however active it was: two may share one odd batch.
        unseen: a unit that has never spoken counts as silent after this many samples.
        memory: samples over which the share of activity is remembered; nets grow sparser as they learn.

    >>> silence = Silence([2])
    >>> for _ in range(10):
    ...     share = silence.update(np.array([True, True]), np.array([True]))
    >>> [float(silence.update(np.array([True, False]), np.array([True]))[0]) for _ in range(4)]
    [0.0, 0.0, 0.5, 0.5]
    """

    def __init__(
        self,
        sizes: Iterable[int] = (),
        *,
        chance: float = 0.01,
        least: int = 3,
        unseen: int = 5,
        memory: int = 32,
    ) -> None:
        self._log_chance = np.log(chance)
        self._least = least
        self._unseen = unseen
        self._keep = 1.0 - 1.0 / memory
        self.sizes = np.empty(0, dtype=np.int64)
        self._seen = np.empty(0)
        self._hits = np.empty(0)
        self._run = np.empty(0, dtype=np.int64)
        self.grow(sizes)

    def grow(self, sizes: Iterable[int]) -> None:
        """Append segments of these many units (each at least 1)."""
        added = np.fromiter(sizes, dtype=np.int64)
        units = int(added.sum())
        self.sizes = np.concatenate([self.sizes, added])
        self._seen = np.concatenate([self._seen, np.zeros(units)])
        self._hits = np.concatenate([self._hits, np.zeros(units)])
        self._run = np.concatenate([self._run, np.zeros(units, dtype=np.int64)])

    def update(self, active: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Take one sample and return the share of silent units of each segment.

        Args:
            active: one entry per unit: did it speak? Anything where its segment is not known.
            known: one entry per segment; :data:`ABSENT` is returned where it is False or too new to tell.
        """
        if not len(self.sizes):
            return np.empty(0)
        looked = np.repeat(known, self.sizes)
        self._fold(looked & active)
        self._run[looked & ~active] += 1
        starts = np.cumsum(self.sizes) - self.sizes
        silent = np.add.reduceat(self._improbable().astype(np.float64), starts) / self.sizes
        return np.where(known & self._old_enough(starts), silent, ABSENT)

    def _fold(self, spoke: NDArray[np.bool_]) -> None:
        """A unit that speaks again: its run of silence and this sample become part of its past."""
        kept = self._keep ** (self._run[spoke] + 1)
        self._seen[spoke] = self._seen[spoke] * kept + (1.0 - kept) / (1.0 - self._keep)
        self._hits[spoke] = self._hits[spoke] * kept + 1.0
        self._run[spoke] = 0

    def _improbable(self) -> NDArray[np.bool_]:
        share = (self._hits + 0.5) / (self._seen + 1.0)
        by_chance = self._run * np.log1p(-share)
        spoken = (by_chance <= self._log_chance) & (self._run >= self._least)
        return np.where(self._hits > 0, spoken, self._run >= self._unseen)

    def _old_enough(self, starts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """A segment can be judged as soon as a unit of it could have been found silent."""
        samples = np.maximum.reduceat(np.where(self._hits > 0, self._seen, 0) + self._run, starts)
        return np.asarray(samples >= self._least)
