"""What a run recorded that can be compared to the last bit: scalars, digests, profiles and facts by rank."""

from array import array
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.errors import CommandError
from torchvitals.signals.reader import Entry, ProcessReader, RunReader
from torchvitals.signals.records import LAUNCHER_RANK, Axis, Digest, Event, Hello, Profile, Step, unpack_integers

Integers = NDArray[np.int64]


class Track:
    """One scalar of one optimizer, every step that was recorded."""

    __slots__ = ("_steps", "_values")

    def __init__(self) -> None:
        self._steps = array("q")
        self._values = array("d")

    def add(self, step: int, value: float) -> None:
        self._steps.append(step)
        self._values.append(value)

    def arrays(self) -> tuple[Integers, NDArray[np.float64]]:
        """Ascending steps, each once (the first record of a step counts), and the values."""
        steps = np.array(self._steps, dtype=np.int64)
        unique, first = np.unique(steps, return_index=True)
        return unique, np.array(self._values, dtype=np.float64)[first]


class Rank(msgspec.Struct, kw_only=True):
    """One rank of a run: the newest process that had its number."""

    hello: Hello
    path: Path
    tracks: dict[tuple[int, str], Track] = {}
    """(optimizer, signal) → its values."""
    digests: dict[tuple[str, str], dict[int, Integers]] = {}
    """(axis, kind) → step → one int64 per entry; step -1 is before the first step."""
    profiles: dict[tuple[str, str], dict[int, int]] = {}
    """(axis, signal) → step → hash of its bytes, good within this process."""
    entries: dict[str, list[str]] = {}
    """Axis → names, as declared last."""
    facts: dict[str, Any] = {}
    events: list[Event] = []
    first_time: float = 0.0
    last_time: float = 0.0

    @property
    def steps(self) -> int:
        """Steps of the first optimizer."""
        ends = [int(track.arrays()[0][-1]) for (optimizer, _), track in self.tracks.items() if not optimizer]
        return max(ends, default=-1) + 1

    def series(self, signal: str, optimizer: int = 0) -> tuple[Integers, NDArray[np.float64]]:
        """Steps and values of a scalar; empty when nobody sent it."""
        track = self.tracks.get((optimizer, signal))
        return track.arrays() if track else (np.empty(0, np.int64), np.empty(0))

    def take(self, entry: Entry) -> None:
        """Take one record of this rank."""
        record = entry.record
        if isinstance(record, Step):
            self.first_time = self.first_time or record.time
            self.last_time = record.time
            for name, value in record.values.items():
                self.tracks.setdefault((record.optimizer, str(name)), Track()).add(record.step, value)
        elif isinstance(record, Axis):
            self.entries[record.key] = record.entries
        elif isinstance(record, Digest):
            self.digests.setdefault((record.axis, record.kind), {})[record.step] = unpack_integers(record.values)
        elif isinstance(record, Profile):
            for name, data in record.values.items():
                self.profiles.setdefault((record.axis, name), {})[record.step] = hash(data)
        elif isinstance(record, Event):
            self.events.append(record)
            if record.kind == "facts":
                self.facts.update(record.details)


class Recorded(msgspec.Struct, kw_only=True):
    """One run as far as it can be compared."""

    run: str
    name: str
    path: Path
    ranks: dict[int, Rank]
    launcher: dict[str, Any] = {}
    """What ``torchvitals run`` wrote of the command; empty for a run that was attached in code."""

    @property
    def first(self) -> Rank:
        """The lowest rank."""
        return self.ranks[min(self.ranks)]

    @property
    def steps(self) -> int:
        """Steps of the rank that came furthest."""
        return max(rank.steps for rank in self.ranks.values())


def load(path: Path) -> Recorded:
    """Read a run from its files.

    Raises:
        CommandError: no process of the run took an optimizer step.
        SpoolError: the directory holds no run, or one of another schema version.

    """
    reader = RunReader(path)
    ranks: dict[int, Rank] = {}
    launcher: dict[str, Any] = {}
    name = path.resolve().name
    for process in reader.processes.values():
        found = _read(process)
        if found is None:
            continue
        name = found.hello.name or name
        if found.hello.rank == LAUNCHER_RANK:
            launcher = next((event.details for event in found.events if event.kind == "command"), launcher)
        elif found.tracks and _newer(found, ranks.get(found.hello.rank)):
            ranks[found.hello.rank] = found
    if not any(rank.steps for rank in ranks.values()):
        raise CommandError(
            f"in {path.resolve().name} no process took an optimizer step, so there is nothing to compare; "
            f"what it did instead: torchvitals diagnose {path.resolve().name}"
        )
    return Recorded(run=path.resolve().name, name=name, path=path, ranks=ranks, launcher=launcher)


def values_at(rank: Rank, axis: str, signal: str, step: int) -> bytes:
    """The bytes of one profile; empty when it is gone."""
    for entry in ProcessReader(rank.path).read():
        record = entry.record
        if isinstance(record, Profile) and (record.axis, record.step) == (axis, step) and signal in record.values:
            return record.values[signal]
    return b""


def _read(process: ProcessReader) -> Rank | None:
    found: Rank | None = None
    for entry in process.read():
        if found is None:
            found = Rank(hello=entry.hello, path=process.path)
        found.hello = entry.hello
        found.take(entry)
    return found


def _newer(found: Rank, known: Rank | None) -> bool:
    key = (found.hello.incarnation, found.hello.started)
    return known is None or key > (known.hello.incarnation, known.hello.started)
