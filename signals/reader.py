"""The reading side of the spool: follow a growing run, or read a finished one; nothing but files is needed."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from torchvitals.signals import frames
from torchvitals.signals.listing import (
    NotARunError,
    RunListing,
    SpoolError,
    UnknownSchemaError,
    UnreadableError,
    first_hello,
    list_runs,
    process_directories,
    segments,
)
from torchvitals.signals.records import (
    SCHEMA_VERSION,
    AnyRecord,
    Axis,
    Digest,
    Hello,
    Profile,
    Requests,
    Step,
    Window,
)
from torchvitals.signals.spool import SIGNAL_AXIS

__all__ = [
    "Entry",
    "NotARunError",
    "ProcessReader",
    "RunListing",
    "RunReader",
    "SpoolError",
    "UnknownSchemaError",
    "UnreadableError",
    "first_hello",
    "list_runs",
]

CHUNK_BYTES = 4 << 20


class Entry(NamedTuple):
    """A record and who wrote it. ``axis`` is the declared axis of a record that refers to one."""

    hello: Hello
    record: AnyRecord
    axis: Axis | None = None


class ProcessReader:
    """Reads one ``<rank>.<pid>`` directory in order and remembers where it was.

    Call :meth:`read` again to get what has been appended since. ``corrupt``, ``unknown`` and
    ``missing_segments`` count what could not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hello: Hello | None = None
        self.corrupt = 0
        self.unknown = 0
        self.missing_segments = 0
        self._segment = -1
        self._offset = 0
        self._axes: dict[str, Axis] = {}
        self._signals: list[str] = []

    @property
    def position(self) -> tuple[int, int]:
        """Segment number and byte offset behind the last entry yielded (or bad frame passed over).

        Exact between entries too, so that a consumer may stop in the middle, commit, and go on later.
        """
        return self._segment, self._offset

    def read(self) -> Iterator[Entry]:
        """Yield what is new. A torn tail waits for the next call.

        Raises:
            UnknownSchemaError: a segment was written with another schema version.
            UnreadableError: a segment is there and cannot be read.

        """
        while True:
            # Looked up before draining: once the next segment exists, nothing more is appended to this one.
            following = self._following()
            if self._segment >= 0:
                yield from self._drain()
            if following is None:
                return
            if self._rest():
                self.corrupt += 1  # torn by a crash or a full disk, and never to be completed
            self.missing_segments += following - self._segment - 1
            self._segment, self._offset = following, 0

    def _drain(self) -> Iterator[Entry]:
        while True:
            data = self._chunk()
            if not data:
                return
            start = self._offset
            for frame in frames.scan(data):
                self._offset = start + frame.end
                if frame.record is not None:
                    entry = self._entry(frame.record)
                    if entry is not None:
                        yield entry
                elif frame.problem == "corrupt":
                    self.corrupt += 1
                else:
                    self.unknown += 1
            if self._offset == start:
                return

    def _chunk(self) -> bytes:
        """The next bytes; longer than a chunk only while one frame is."""
        size = CHUNK_BYTES
        try:
            with (self.path / f"{self._segment}.spool").open("rb") as file:
                while True:
                    file.seek(self._offset)
                    data = file.read(size)
                    if len(data) < size or size > frames.MAX_PAYLOAD or next(frames.scan(data), None):
                        return data
                    size *= 4
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UnreadableError(f"{self.path}: segment {self._segment} cannot be read: {error}") from error

    def _rest(self) -> bool:
        """Whether bytes are left behind the last whole frame of the current segment."""
        try:
            return (self.path / f"{self._segment}.spool").stat().st_size > self._offset >= 0
        except OSError:
            return False

    def _entry(self, record: AnyRecord) -> Entry | None:
        if isinstance(record, Hello):
            self._greet(record)
            return Entry(record, record)
        if isinstance(record, Axis):
            if record.key == SIGNAL_AXIS:
                self._signals = record.entries
            else:
                self._axes[record.key] = record
        if self.hello is None:
            self.unknown += 1
            return None
        if isinstance(record, Step):
            record = self._named(record)
        axis = self._axes.get(getattr(record, "axis", ""))
        if not _consistent(record, axis):
            self.corrupt += 1
            return None
        return Entry(self.hello, record, axis)

    def _greet(self, hello: Hello) -> None:
        if hello.schema != SCHEMA_VERSION:
            raise UnknownSchemaError(
                f"{self.path}: written with spool schema {hello.schema}, this torchvitals reads "
                f"{SCHEMA_VERSION}; install the torchvitals that wrote it, or a newer one"
            )
        self.hello = hello

    def _named(self, step: Step) -> Step:
        names = self._signals
        values: dict[int | str, float] = {}
        for key, value in step.values.items():
            if isinstance(key, str):
                values[key] = value
            elif 0 <= key < len(names):
                values[names[key]] = value
        return msgspec.structs.replace(step, values=values)

    def _following(self) -> int | None:
        numbers = [n for n in segments(self.path) if n > self._segment]
        return min(numbers, default=None)


class RunReader:
    """Reads all processes of one run, those that appear later included.

    Args:
        path: the run's directory.
        also: directories in which other hosts record the same run; they may come later, ``path`` as well then.

    Raises:
        NotARunError: there is no such directory, it is empty, or holds nothing a job wrote.

    """

    def __init__(self, path: Path, *also: Path) -> None:
        self.path = path
        self.processes: dict[str, ProcessReader] = {}
        """By name of its directory, with the place behind it where that is not below ``path``: numbers of processes
        are unique on one host only."""
        self._places = (path, *also)
        if not any(place.is_dir() for place in self._places):
            raise NotARunError(f"{path} is not a directory; list the recorded runs with: torchvitals runs")
        self.look()
        if not self.processes:
            listed = [place for place in self._places if place.is_dir()]
            what = "holds no spool files" if any(any(place.iterdir()) for place in listed) else "is empty"
            raise NotARunError(
                f"{path} {what}, so there is nothing to diagnose; record a job with: torchvitals run COMMAND"
            )

    def look(self) -> None:
        """Find processes that have appeared since.

        Raises:
            UnreadableError: a directory cannot be listed.

        """
        for place in self._places:
            self._look_in(place)

    def _look_in(self, place: Path) -> None:
        try:
            children = list(process_directories(place))
        except FileNotFoundError:
            return
        except OSError as error:
            raise UnreadableError(f"{place} cannot be listed: {error}") from error
        for child in children:
            name = child.name if place == self.path else f"{child.name}@{place.parent}"
            if name not in self.processes:
                self.processes[name] = ProcessReader(child)

    def read(self) -> Iterator[Entry]:
        """Yield what is new, one process after the other."""
        self.look()
        for process in list(self.processes.values()):
            yield from process.read()


def _consistent(record: AnyRecord, axis: Axis | None) -> bool:
    """Whether the byte strings of ``record`` have the length that their meaning asks for.

    Consumers may then unpack without a guard; only a broken writer fails this, the checksum being good.
    """
    entries = len(axis.entries) if axis else None
    match record:
        case Profile() | Window():
            return all(len(data) % 4 == 0 and entries in (None, len(data) // 4) for data in record.values.values())
        case Digest():
            # Digests of other things (hyper-parameters) refer to the same axis and have a length of their own.
            fits = axis is None or axis.kind != record.kind or len(record.values) // 8 == entries
            return len(record.values) % 8 == 0 and fits
        case Requests():
            return len(record.latencies) % 4 == 0 and len(record.items) in (0, len(record.latencies))
        case _:
            return True
