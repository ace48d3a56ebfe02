"""What a run said, kept small enough to hold in memory: the newest steps in full, the rest thinned out."""

from collections import deque
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RECENT_STEPS = 4096
THINNED_POINTS = 4096


class Series(NamedTuple):
    """Steps and values of one signal, ascending; non-finite values included."""

    steps: NDArray[np.int64]
    values: NDArray[np.float64]

    def before(self, step: int, count: int) -> NDArray[np.float64]:
        """Up to ``count`` values before ``step``, the nearest last."""
        end = int(np.searchsorted(self.steps, step))
        return self.values[max(0, end - count) : end]

    def at(self, step: int) -> float | None:
        """The value at ``step``, or ``None`` when none was kept."""
        index = int(np.searchsorted(self.steps, step))
        if index < len(self.steps) and self.steps[index] == step:
            return float(self.values[index])
        return None


class _Track:
    """One scalar signal: every ``stride``-th old value and all recent ones."""

    __slots__ = ("_old", "_seen", "_stride", "recent")

    def __init__(self) -> None:
        self.recent: deque[tuple[int, float]] = deque()
        self._old: list[tuple[int, float]] = []
        self._stride = 1
        self._seen = 0

    def add(self, step: int, value: float) -> None:
        if self.recent and step < self.recent[-1][0]:
            return  # put together from all ranks after one of them had told a later one by itself
        self.recent.append((step, value))
        if len(self.recent) > RECENT_STEPS:
            leaving = self.recent.popleft()
            if self._seen % self._stride == 0:
                self._old.append(leaving)
            self._seen += 1
            if len(self._old) > THINNED_POINTS:
                self._old = self._old[::2]
                self._stride *= 2

    def series(self) -> Series:
        points = [*self._old, *self.recent]
        steps = np.fromiter((step for step, _ in points), dtype=np.int64, count=len(points))
        values = np.fromiter((value for _, value in points), dtype=np.float64, count=len(points))
        return Series(steps, values)


class ProfileAt(NamedTuple):
    """One sampled step along an axis."""

    step: int
    entries: list[str]
    values: NDArray[np.float64]


PROFILES_KEPT = 64


class History:
    """Everything a cause may want to look at. State is bounded: O(signals), not O(steps)."""

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, int, int], _Track] = {}
        self._profiles: dict[tuple[str, int, int], deque[ProfileAt]] = {}
        self.last_step: dict[int, int] = {}
        """Rank → the last step it completed."""

    def add(self, signal: str, step: int, value: float, rank: int = 0, optimizer: int = 0) -> None:
        """Take one scalar."""
        track = self._tracks.get((signal, rank, optimizer))
        if track is None:
            track = self._tracks[signal, rank, optimizer] = _Track()
        track.add(step, value)

    def add_profile(self, signal: str, profile: ProfileAt, rank: int = 0, optimizer: int = 0) -> None:
        """Take one profile; the first four and the newest are kept."""
        kept = self._profiles.setdefault((signal, rank, optimizer), deque())
        kept.append(profile)
        if len(kept) > PROFILES_KEPT:
            del kept[4]

    def series(self, signal: str, rank: int | None = 0, optimizer: int = 0) -> Series:
        """The scalars of one rank (``None``: of the lowest rank that sent any); empty when nobody did."""
        if rank is None:
            rank = min(self.ranks(signal), default=0)
        track = self._tracks.get((signal, rank, optimizer))
        return track.series() if track else Series(np.empty(0, np.int64), np.empty(0))

    def profiles(self, signal: str, rank: int | None = 0, optimizer: int = 0) -> list[ProfileAt]:
        """The kept profiles of one signal, oldest first."""
        if rank is None:
            rank = min((r for s, r, _ in self._profiles if s == signal), default=0)
        return list(self._profiles.get((signal, rank, optimizer), ()))

    def ranks(self, signal: str) -> list[int]:
        """The ranks that sent ``signal``."""
        return sorted({rank for name, rank, _ in self._tracks if name == signal})

    def signals(self) -> list[str]:
        """The scalar signals somebody sent."""
        return sorted({name for name, _, _ in self._tracks})
