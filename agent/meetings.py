"""Who came late to the collectives: the arrivals of all ranks laid side by side, step by step."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.clocks import Ends, offsets
from torchvitals.detectors.detector import Reading
from torchvitals.signals.records import Arrivals, Step, unpack_integers

LATENESS, SHARING = "arrival_lateness", "collective_seconds"
PHASES = ("step_seconds", "data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds", "machine_load")
KEPT_STEPS = 8192
"""The recorder's ring holds 2000 collectives and is read at the latest every few thousand steps."""


class _Made(NamedTuple):
    """A step as one rank made it."""

    step: int
    time: float
    phases: tuple[float, ...]


class _Told(NamedTuple):
    """What one rank told of the collectives from number ``first`` on: nanoseconds, 0 where unknown."""

    first: int
    moments: NDArray[np.int64]

    @property
    def behind(self) -> int:
        """The number of the first that was not told."""
        return self.first + len(self.moments)

    def and_then(self, more: "_Told") -> "_Told":
        """Both; what lies before a gap is given up, since nobody can have met there any more."""
        if not self.first <= more.first <= self.behind:
            return more
        return _Told(self.first, np.concatenate([self.moments[: more.first - self.first], more.moments]))

    def between(self, first: int, behind: int) -> NDArray[np.int64]:
        """The moments of the collectives from ``first`` up to, but not including, ``behind``."""
        return self.moments[first - self.first : behind - self.first]


class Meetings:
    """The arrivals of one crew.

    Args:
        ranks: how many ranks there are.

    """

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._made: dict[int, deque[_Made]] = {}
        self._hosts: dict[int, str] = {}
        self._told: dict[str, dict[int, _Told]] = {}
        """By group and rank."""
        self._members: dict[str, list[int]] = {}
        self._news: set[str] = set()
        """Groups of which something was told that has not been laid side by side."""

    def note_step(self, rank: int, host: str, step: Step) -> None:
        """``rank`` has made a step of the first optimizer."""
        self._hosts[rank] = host
        phases = tuple(step.values.get(name, np.nan) for name in PHASES)
        self._made.setdefault(rank, deque(maxlen=KEPT_STEPS)).append(_Made(step.step, step.time, phases))

    def put(self, rank: int, arrivals: Arrivals) -> None:
        """Take what ``rank`` tells of one group."""
        if rank >= self._ranks:
            return
        self._members[arrivals.group] = arrivals.ranks or list(range(self._ranks))
        told = _Told(arrivals.first, unpack_integers(arrivals.created))
        group = self._told.setdefault(arrivals.group, {})
        group[rank] = group[rank].and_then(told) if rank in group else told
        self._news.add(arrivals.group)

    def ready(self, awaited: Iterable[int]) -> Iterator[Reading]:
        """One reading per step, for the collectives that every awaited member of a group has told of."""
        awaited = set(awaited)
        for group in sorted(self._news):
            told = self._told[group]
            members = [rank for rank in self._members[group] if rank in awaited or rank in told]
            if len(members) < 2 or not all(rank in told for rank in members):
                continue
            self._news.discard(group)
            first, behind = max(told[rank].first for rank in members), min(told[rank].behind for rank in members)
            if first >= behind:
                continue
            created = np.stack([told[rank].between(first, behind) for rank in members], axis=1)
            for rank in members:
                told[rank] = _Told(behind, told[rank].between(behind, told[rank].behind))
            yield from self._steps(members, created[(created > 0).all(axis=1)])

    def _steps(self, members: list[int], created: NDArray[np.int64]) -> Iterator[Reading]:
        """``created``: collectives × members."""
        ends = {rank: self._ends(rank) for rank in members if rank in self._made}
        if members[0] not in ends or not len(created):
            return
        apart = offsets(ends, self._hosts)
        clock = np.array([apart.get(rank, 0.0) for rank in members])
        moments = created / 1e9 - clock
        made = self._made[members[0]]
        # The step a collective belongs to is the one that ends next, by the clock of the rank that was there.
        owner = np.searchsorted([each.time for each in made], moments[:, 0] + clock[0])
        for index in np.unique(owner[owner < len(made)]).tolist():
            yield self._reading(members, moments[owner == index], made[index], clock)

    def _ends(self, rank: int) -> Ends:
        """When ``rank`` left the sharing of each step: before its optimizer, whose speed is its own."""
        made = self._made[rank]
        spent = np.nan_to_num([each.phases[PHASES.index("optimizer_seconds")] for each in made])
        steps = np.array([each.step for each in made], dtype=np.int64)
        _, first = np.unique(steps, return_index=True)
        return steps[first], (np.array([each.time for each in made]) - spent)[first]

    def _reading(
        self, members: list[int], moments: NDArray[np.float64], made: _Made, clock: NDArray[np.float64]
    ) -> Reading:
        """``moments``: collectives × members, by one clock; ``clock``: how far that of each member is ahead of it."""
        widest = moments[np.ptp(moments, axis=1).argmax()]
        values = {name: np.full(self._ranks, np.nan) for name in (LATENESS, SHARING, *PHASES)}
        # Of two ranks the first is half of them.
        values[LATENESS][members] = widest - np.sort(widest)[(len(members) - 1) // 2]
        for rank, ahead in zip(members, clock.tolist(), strict=True):
            mine = self._at(rank, made.step)
            if mine is None:
                continue
            for name, value in zip(PHASES, mine.phases, strict=True):
                values[name][rank] = value
            # When all have come to the last collective, what is left until the optimizer's turn is the network's.
            left = mine.time - np.nan_to_num(values["optimizer_seconds"][rank]) - ahead
            values[SHARING][rank] = max(0.0, left - moments[-1].max())
        return Reading(made.step, made.time, values, {name: np.isfinite(each) for name, each in values.items()})

    def _at(self, rank: int, step: int) -> _Made | None:
        made = self._made.get(rank)
        if not made:
            return None
        index = step - made[-1].step - 1  # steps are recorded one after the other, as a rule
        if -len(made) <= index < 0 and made[index].step == step:
            return made[index]
        return next((each for each in made if each.step == step), None)
