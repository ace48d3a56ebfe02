"""Bring ranks into step: what a run says must not depend on which process was read first.

Every process is a first-in-first-out queue. A *tick* delivers from each rank, in rank order, everything
up to its next ``Step`` record; it happens when every rank of the world has one waiting or has ended. What
the engine sees is then a function of the records alone, however the processes were interleaved.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Event, Requests, Step, Window

LEAD_SECONDS = 300.0
"""How long, in the job's own time, others wait for a silent rank: slow starts and checkpoints take a minute or two;"""
LEAD_STEPS = 2000
"""and how many steps at least: the live agent reads processes a thousand records at a time."""
LEAD_LIMIT = 20_000
"""And at most, whatever the time: about 25 MB of records."""

PACERS = (Step, Requests, Window)


class Lane:
    """The queue of one rank. ``paces`` counts what has been delivered that moves time on."""

    __slots__ = ("due_times", "ended", "entries", "late", "paces")

    def __init__(self) -> None:
        self.entries: deque[Entry] = deque()
        self.due_times: deque[float] = deque()
        """When each waiting step was made."""
        self.ended = False
        self.late = False
        """Nobody waits for it until it speaks again."""
        self.paces = 0

    def push(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.late = False
        if isinstance(entry.record, PACERS):
            self.due_times.append(entry.record.time)
        if isinstance(entry.record, Event) and entry.record.kind == "exit":
            self.ended = True

    def take(self, upto: int) -> Iterator[Entry]:
        """Deliver up to and including the ``upto``-th step; of an ended rank without steps all that is left."""
        while self.entries and (self.paces < upto or self.is_tail):
            entry = self.entries.popleft()
            if isinstance(entry.record, PACERS):
                self.paces += 1
                self.due_times.popleft()
            yield entry

    @property
    def is_tail(self) -> bool:
        """Whether what is left are the last words of a process that has ended."""
        return self.ended and not self.due_times


class Lanes:
    """The queues of all ranks of one world.

    Args:
        ranks: the ranks that are expected to speak.
        lead_seconds, lead_steps: nobody waits for a silent rank that the leader is ahead of by both.
        lead_limit: nor for one that it is ahead of by so many steps.

    """

    def __init__(
        self,
        ranks: Iterable[int],
        *,
        lead_seconds: float = LEAD_SECONDS,
        lead_steps: int = LEAD_STEPS,
        lead_limit: int = LEAD_LIMIT,
    ) -> None:
        self.lanes = {rank: Lane() for rank in ranks}
        self._lead_seconds = lead_seconds
        self._lead_steps = lead_steps
        self._lead_limit = lead_limit
        self._tick = 0
        self._newest = 0.0

    def push(self, rank: int, entry: Entry) -> None:
        """Take one entry; :meth:`deliver` says what has become due."""
        self.lanes.setdefault(rank, Lane()).push(entry)
        if isinstance(entry.record, PACERS):
            self._newest = max(self._newest, entry.record.time)

    def end(self, rank: int) -> None:
        """No more will come from this rank."""
        self.lanes.setdefault(rank, Lane()).ended = True

    @property
    def absent(self) -> list[int]:
        """The ranks nobody waits for any more: ended, or silent for too long."""
        return sorted(rank for rank, lane in self.lanes.items() if lane.is_tail or lane.late)

    def deliver(self) -> Iterator[tuple[int, list[Entry]]]:
        """Yield (rank, entries) in order; after each whole tick (-1, [])."""
        while True:
            yield from self._deliver([rank for rank, lane in self.lanes.items() if lane.is_tail])
            if not self._due():
                return
            self._tick += 1
            yield from self._deliver(list(self.lanes))
            yield -1, []

    def _deliver(self, ranks: list[int]) -> Iterator[tuple[int, list[Entry]]]:
        for rank in sorted(ranks):
            entries = list(self.lanes[rank].take(self._tick))
            if entries:
                yield rank, entries

    def _due(self) -> bool:
        waiting = [lane for lane in self.lanes.values() if lane.due_times]
        silent = [lane for lane in self.lanes.values() if not (lane.due_times or lane.ended or lane.late)]
        if not waiting or not silent:
            return bool(waiting)
        if not self._overdue(waiting):
            return False
        for lane in silent:
            lane.late = True
        return True

    def _overdue(self, waiting: list[Lane]) -> bool:
        oldest = min(lane.due_times[0] for lane in waiting)
        queued = max(len(lane.due_times) for lane in waiting)
        if queued > self._lead_limit:
            return True
        return queued > self._lead_steps and self._newest - oldest > self._lead_seconds
