"""Which units have been silent for improbably long, judged by how often each of them used to speak.

A unit that was zero for one batch is no dead unit: with batch size 1 and 90 % sparsity nine in ten are. So
each unit is compared with its own past: one active in a share *a* of the samples is silent for *r* samples
in a row by chance with probability (1 - a)^r. The same goes for a layer that falls silent as a whole.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torchvitals.signals.records import ABSENT

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Runs:
    """Samples of silence in a row of many subjects, and how often each spoke before. Three numbers per subject.

    Args:
        memory: samples over which the share of activity is remembered; nets grow sparser as they learn.
    """

    def __init__(self, memory: int) -> None:
        self._keep = 1.0 - 1.0 / memory
        self.seen = np.empty(0)
        self.hits = np.empty(0)
        self.run = np.empty(0, dtype=np.int64)

    def grow(self, count: int) -> None:
        """Append ``count`` subjects."""
        self.seen = np.pad(self.seen, (0, count))
        self.hits = np.pad(self.hits, (0, count))
        self.run = np.pad(self.run, (0, count))

    def update(self, spoke: Bools, looked: Bools) -> None:
        """One that speaks again has its run of silence, and this sample, become part of its past."""
        self.run[looked & ~spoke] += 1
        again = looked & spoke
        kept = self._keep ** (self.run[again] + 1)
        self.seen[again] = self.seen[again] * kept + (1.0 - kept) / (1.0 - self._keep)
        self.hits[again] = self.hits[again] * kept + 1.0
        self.run[again] = 0

    def share(self) -> Floats:
        """How often each spoke until its present run of silence began; 1/2 where nothing is known."""
        return (self.hits + 0.5) / (self.seen + 1.0)

    def samples(self) -> Floats:
        """Samples that tell of each (those remembered, and the present run)."""
        return self.seen + self.run


class Silence:
    """The share of silent units of each layer.

    Args:
        sizes: units of each layer, at least 1.
        chance: silence counts when it would last so long with less than this probability.
        least: but never before this many samples, however active the unit was: two may share one odd batch.
        unseen: the same for units that have never spoken, whose share is taken to be half that of their fellows.
        memory: see :class:`Runs`.

    >>> silence = Silence([2])
    >>> for _ in range(10):
    ...     share = silence.update(np.array([True, True]), np.array([True]))
    >>> [float(silence.update(np.array([True, False]), np.array([True]))[0]) for _ in range(4)]
    [0.0, 0.0, 0.5, 0.5]
    """

    def __init__(
        self, sizes: Iterable[int] = (), *, chance: float = 0.01, least: int = 3, unseen: int = 5, memory: int = 32
    ) -> None:
        self._log_chance = np.log(chance)
        self._least = least
        self._unseen = unseen
        self.sizes = np.empty(0, dtype=np.int64)
        self._units = Runs(memory)
        self._layers = Runs(memory)
        self.grow(sizes)

    def grow(self, sizes: Iterable[int]) -> None:
        """Append layers of these many units."""
        added = np.fromiter(sizes, dtype=np.int64)
        self.sizes = np.concatenate([self.sizes, added])
        self._units.grow(int(added.sum()))
        self._layers.grow(len(added))

    def update(self, active: Bools, known: Bools) -> Floats:
        """Take one sample and return the share of silent units of each layer.

        Args:
            active: one entry per unit: did it speak? Anything where its layer is not known.
            known: one entry per layer; :data:`ABSENT` is returned where it is False or too new to tell.
        """
        if not len(self.sizes):
            return np.empty(0)
        self._units.update(active, np.repeat(known, self.sizes))
        self._layers.update(self._sum(active) > 0, known)
        whole = self._improbable(self._layers) & (self._layers.run >= self._least)
        share = np.where(whole, 1.0, self._sum(self._silent_units()) / self.sizes)
        old = self._layers.samples() >= np.where(whole, self._least, self._unseen)
        return np.where(known & old, share, ABSENT)

    def _silent_units(self) -> Bools:
        units = self._units
        spoken = self._improbable(units) & (units.run >= self._least)
        mute = units.hits == 0
        fellows = self._sum(np.where(mute, 0.0, units.share())) / np.maximum(self._sum(~mute), 1)
        guess = np.repeat(fellows / 2, self.sizes)
        unseen = (units.run * np.log1p(-guess) <= self._log_chance) & (units.run >= self._unseen)
        return np.where(mute, unseen, spoken)

    def _improbable(self, runs: Runs) -> Bools:
        """Whether silence has lasted too long for one who spoke so often, or who never did."""
        by_chance = runs.run * np.log1p(-runs.share()) <= self._log_chance
        return np.asarray(by_chance | (runs.hits == 0))

    def _sum(self, per_unit: NDArray[np.generic]) -> Floats:
        starts = np.cumsum(self.sizes) - self.sizes
        return np.asarray(np.add.reduceat(per_unit.astype(np.float64), starts))
