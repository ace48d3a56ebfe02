"""A crew is one world of ranks at work together: one incarnation of a job. Its steps count from 0."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.alignment import Lanes
from torchvitals.agent.history import History, ProfileAt
from torchvitals.agent.meetings import LATENESS, SHARING, Meetings
from torchvitals.agent.readings import (
    Rows,
    buffer_reading,
    profile_reading,
    rank_reading,
    unpacked,
    window_reading,
)
from torchvitals.agent.replicas import SUMS, Replicas
from torchvitals.agent.shards import with_wholes
from torchvitals.agent.watch import RecordWatch, Watch
from torchvitals.detectors.allowance import Allowance
from torchvitals.detectors.detector import Detector, DetectorAxis, Finding, Reading, Status
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import (
    AnyRecord,
    Arrivals,
    Axis,
    Beat,
    Digest,
    Event,
    Hello,
    Profile,
    Requests,
    Stacks,
    Step,
    Window,
    unpack_floats,
)

BUFFER = "buffer"
"""Who watches these sees values, at steps of their own."""
ARRIVALS = "arrivals"
"""Who watches these sees steps late, and only those whose collectives are known."""
APART = {LATENESS: ARRIVALS, "buffer_mean": BUFFER}
"""Detectors that read these signals are fed apart from the others of their axis."""


class _Pending(NamedTuple):
    """Profiles of one sampled step that may still get company."""

    step: int
    time: float
    axis: Axis
    values: dict[str, NDArray[np.float64]]


class Crew:
    """Feeds the detectors of one world in an order that depends on the records alone.

    Args:
        hello: of the first process of the crew that was seen; a launcher that nobody trained under is a crew too.
        detectors: all detectors that read signals.
        records: the run's detectors of records, shared by its crews.
        allowance: how many false alarms the detectors may raise.

    """

    def __init__(
        self,
        hello: Hello,
        detectors: Sequence[type[Detector]],
        records: RecordWatch,
        allowance: Allowance | None = None,
    ) -> None:
        self.hello = hello
        self.world_size = 1 if hello.role == "serve" else hello.world_size
        ranks = [hello.rank] if hello.role == "serve" else range(hello.world_size)
        self.history = History()
        self.events: list[tuple[int, Event]] = []
        self._lanes = Lanes(ranks)
        self._classes = detectors
        self._records = records
        self._allowance = allowance
        self._hellos: dict[int, Hello] = {}
        self._steps: dict[int, Rows[Step]] = {}
        self._replicas: dict[int, Replicas] = {}
        """By optimizer."""
        self._meetings = Meetings(self.world_size)
        self._buffers: Rows[Profile] = Rows()
        self._channels: list[str] = []
        self._watches: dict[tuple[DetectorAxis, int, int, str], Watch] = {}
        self._pending: dict[tuple[int, int, str], _Pending] = {}
        self._reads = sorted({name for cls in detectors if cls.axis == "rank" for name in cls.reads})

    def feed(self, entry: Entry) -> list[Finding]:
        """Take one entry of one of its processes and return what has become certain."""
        rank = entry.hello.rank
        self._hellos[rank] = entry.hello
        if isinstance(entry.record, Beat | Stacks):  # they are the news when steps stop: they wait for nobody
            return self._records.observe(entry.hello, entry.record)
        self._lanes.push(rank, entry)
        return list(self._advance())

    def end(self, rank: int) -> list[Finding]:
        """Wait no more for this rank."""
        self._lanes.end(rank)
        return list(self._advance())

    def finish(self) -> list[Finding]:
        """Nobody will say more: deliver all that waits."""
        for rank in self._lanes.lanes:
            self._lanes.end(rank)
        found = list(self._advance())
        for rank, optimizer, key in sorted(self._pending):
            found.extend(self._flush(rank, optimizer, key))
        found.extend(self._rows_due([]))
        for watch in self._watches.values():
            found.extend(watch.conclude())
        return found

    def statuses(self) -> Iterator[tuple[str, Status]]:
        """Where every detector instance stands."""
        for watch in self._watches.values():
            yield from watch.statuses()

    def _advance(self) -> Iterator[Finding]:
        for rank, entries in self._lanes.deliver():
            if rank < 0:
                yield from self._rows_due(set(self._lanes.lanes) - set(self._lanes.absent))
            for entry in entries:
                yield from self._take(rank, entry.record, entry.axis)

    def _take(self, rank: int, record: AnyRecord, axis: Axis | None) -> Iterator[Finding]:
        yield from self._records.observe(self._hellos[rank], record)
        if isinstance(record, Step):
            yield from self._take_step(rank, record)
        elif isinstance(record, Profile) and axis is not None and axis.kind == BUFFER:
            if "buffer_mean" in record.values:
                self._channels = axis.entries
                self._buffers.put(record.step, rank, record)
        elif isinstance(record, Profile) and axis is not None:
            yield from self._take_profile(rank, record, axis)
        elif isinstance(record, Digest):
            self._take_digest(rank, record, axis)
        elif isinstance(record, Arrivals):
            self._meetings.put(rank, record)
        elif isinstance(record, Window) and axis is not None:
            yield from self._take_window(rank, record, axis)
        elif isinstance(record, Requests):
            self._take_requests(rank, record)
        elif isinstance(record, Event):
            self.events.append((rank, record))

    def _take_step(self, rank: int, step: Step) -> Iterator[Finding]:
        for name, value in step.values.items():
            self.history.add(str(name), step.step, value, rank, step.optimizer)
        if step.counts:
            self.history.last_step[rank] = step.step
            self._meetings.note_step(rank, self._hellos[rank].host, step)
        self._steps.setdefault(step.optimizer, Rows()).put(step.step, rank, step)
        for key in [k for k in self._pending if k[:2] == (rank, step.optimizer)]:
            if self._pending[key].step < step.step:
                yield from self._flush(*key)

    def _take_profile(self, rank: int, profile: Profile, axis: Axis) -> Iterator[Finding]:
        key = (rank, profile.optimizer, profile.axis)
        waiting = self._pending.get(key)
        if waiting is not None and (waiting.step != profile.step or waiting.axis.entries != axis.entries):
            yield from self._flush(*key)
            waiting = None
        values = {**(waiting.values if waiting else {}), **unpacked(profile)}
        self._pending[key] = _Pending(profile.step, profile.time, axis, values)

    def _flush(self, rank: int, optimizer: int, key: str) -> list[Finding]:
        step, time, axis, values = self._pending.pop((rank, optimizer, key))
        for name, array in values.items():
            self.history.add_profile(name, ProfileAt(step, axis.entries, array), rank, optimizer)
        kind: DetectorAxis = "module" if axis.kind == "module" else "parameter"
        return self._watch(kind, rank, optimizer, key, axis.entries).update(profile_reading(step, time, values))

    def _take_digest(self, rank: int, digest: Digest, axis: Axis | None) -> None:
        kind, _, number = digest.axis.rpartition(":")
        if kind != "parameter" or digest.kind not in ("parameter", "hyperparameter") or not number.isdecimal():
            return  # of what ranks need not have alike
        replicas = self._replicas.setdefault(int(number), Replicas(self.world_size))
        replicas.put(rank, digest, axis)

    def _take_window(self, rank: int, window: Window, axis: Axis) -> list[Finding]:
        for name, array in unpacked(window).items():
            self.history.add_profile(name, ProfileAt(window.first, axis.entries, array), rank)
        self.history.last_step[rank] = window.first + window.requests - 1
        return self._watch("feature", rank, 0, window.axis, axis.entries).update(window_reading(window))

    def _take_requests(self, rank: int, requests: Requests) -> None:
        latencies = unpack_floats(requests.latencies)
        for offset, value in enumerate(latencies.tolist()):
            self.history.add("latency_seconds", requests.first + offset, value, rank)
        self.history.last_step[rank] = requests.first + len(latencies) - 1

    def _rows_due(self, awaited: Sequence[int] | set[int]) -> Iterator[Finding]:
        for optimizer in sorted(self._steps):
            watch = self._watch("rank", -1, optimizer, "", ())
            replicas = self._replicas.get(optimizer)
            sums = []
            shared = replicas is None or replicas.share_work
            names = self._reads if shared else [name for name in self._reads if name != "batch_digest"]
            for step, parts in self._steps[optimizer].ready(awaited):
                rows = self._put_together(optimizer, step, parts)
                yield from watch.update(rank_reading(step, rows, self.world_size, names))
                if replicas is not None and (reading := replicas.sums(step, rows)):
                    sums.append(reading)
            if replicas is not None:
                yield from self._compare(optimizer, replicas, [*sums, *replicas.ready(awaited)])

        for step, looks in self._buffers.ready(awaited):
            watch = self._watch("replica", -1, 0, BUFFER, self._channels)
            yield from watch.update(buffer_reading(step, looks, self.world_size))
        yield from self._meet(awaited)

    def _put_together(self, optimizer: int, step: int, parts: dict[int, Step]) -> dict[int, Step]:
        """The norms of sharded gradients, which no rank knows by itself."""
        rows, wholes = with_wholes(parts, self.world_size)
        for name, value in wholes.items():
            for rank in rows:
                self.history.add(name, step, value, rank, optimizer)
        return rows

    def _meet(self, awaited: Sequence[int] | set[int]) -> Iterator[Finding]:
        for reading in self._meetings.ready(awaited):
            for name in (LATENESS, SHARING):
                for rank in np.flatnonzero(reading.present[name]).tolist():
                    self.history.add(name, reading.step, float(reading.values[name][rank]), rank)
            yield from self._watch("rank", -1, 0, ARRIVALS, ()).update(reading)

    def _compare(self, optimizer: int, replicas: Replicas, readings: list[Reading]) -> Iterator[Finding]:
        for reading in sorted(readings, key=lambda reading: (reading.step, reading.values.keys().isdisjoint(SUMS))):
            yield from self._watch("replica", -1, optimizer, "", replicas.columns).update(reading)

    def _watch(self, axis: DetectorAxis, rank: int, optimizer: int, key: str, entries: Sequence[str]) -> Watch:
        place = (axis, rank, optimizer, key)
        watch = self._watches.get(place)
        if watch is None or not watch.extends(entries):
            wanted = key if key in APART.values() else ""
            classes = [cls for cls in self._classes if cls.axis == axis and _key_of(cls) == wanted]
            watch = Watch(classes, rank=None if rank < 0 else rank, optimizer=optimizer, allowance=self._allowance)
            self._watches[place] = watch
        watch.entries = list(entries)
        return watch


def _key_of(cls: type[Detector]) -> str:
    return next((APART[name] for name in cls.reads if name in APART), "")
