"""The reading side of the spool: follow a growing run, or read a finished one; nothing but files is needed."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
from torchvitals.signals import frames
from torchvitals.signals.records import LAUNCHER_RANK, SCHEMA_VERSION, AnyRecord, Axis, Hello, Step
from torchvitals.signals.spool import SIGNAL_AXIS

CHUNK_BYTES = 4 << 20


class SpoolError(Exception):
    """A spool that cannot be read; the message says what was seen and what to do."""


class NotARunError(SpoolError):
    """The directory holds no run."""


class UnknownSchemaError(SpoolError):
    """The spool was written by an incompatible version."""


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

        """
        while True:
            if self._segment >= 0:
                yield from self._drain()
            following = self._following()
            if following is None:
                return
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
        numbers = [n for n in _segments(self.path) if n > self._segment]
        return min(numbers, default=None)


class RunReader:
    """Reads all processes of one run directory, those that appear later included.

    Raises:
        NotARunError: ``path`` is no directory, is empty, or holds nothing a job wrote.

    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise NotARunError(f"{path} is not a directory; list the recorded runs with: torchvitals runs")
        self.path = path
        self.processes: dict[str, ProcessReader] = {}
        self.look()
        if not self.processes:
            what = "is empty" if not any(path.iterdir()) else "holds no spool files"
            raise NotARunError(
                f"{path} {what}, so there is nothing to diagnose; record a job with: torchvitals run COMMAND"
            )

    def look(self) -> None:
        """Find processes that have appeared since."""
        for child in _process_directories(self.path):
            self.processes.setdefault(child.name, ProcessReader(child))

    def read(self) -> Iterator[Entry]:
        """Yield what is new, one process after the other."""
        self.look()
        for process in list(self.processes.values()):
            yield from process.read()


class RunListing(NamedTuple):
    """What a directory listing tells of a run without reading it through."""

    run: str
    name: str
    path: Path
    started: float
    last_written: float
    world_size: int
    processes: int
    host: str
    command: str


def list_runs(directory: Path) -> list[RunListing]:
    """The runs below ``directory``, the latest started last; foreign folders are passed over."""
    if not directory.is_dir():
        return []
    found = [listing for child in directory.iterdir() if child.is_dir() and (listing := _listing(child))]
    return sorted(found, key=lambda listing: (listing.started, listing.run))


def first_hello(path: Path) -> Hello | None:
    """The ``Hello`` that opens the first readable segment of a process directory."""
    for number in sorted(_segments(path)):
        try:
            with (path / f"{number}.spool").open("rb") as file:
                frame = next(frames.scan(file.read(1 << 16)), None)
        except OSError:
            continue
        if frame is not None and isinstance(frame.record, Hello):
            return frame.record
    return None


def _listing(path: Path) -> RunListing | None:
    directories = list(_process_directories(path))
    hellos = [hello for child in directories if (hello := first_hello(child))]
    if not hellos:
        return None
    launcher = next((hello for hello in hellos if hello.rank == LAUNCHER_RANK), None)
    workers = [hello for hello in hellos if hello.rank != LAUNCHER_RANK]
    speaker = launcher or workers[0]
    return RunListing(
        run=path.name,
        name=speaker.name,
        path=path,
        started=min(hello.started for hello in hellos),
        last_written=max((_last_written(child) for child in directories), default=0.0),
        world_size=max((hello.world_size for hello in workers), default=0),
        processes=len(workers),
        host=speaker.host,
        command=speaker.command,
    )


def _process_directories(path: Path) -> Iterator[Path]:
    for child in sorted(path.iterdir()):
        rank, _, pid = child.name.partition(".")
        if rank.lstrip("-").isdigit() and pid.isdigit() and child.is_dir() and _segments(child):
            yield child


def _segments(path: Path) -> list[int]:
    try:
        return [int(file.stem) for file in path.iterdir() if file.suffix == ".spool" and file.stem.isdigit()]
    except FileNotFoundError:
        return []


def _last_written(path: Path) -> float:
    """Latest modification among the segments, never in the future of this host's clock."""
    times = []
    for number in _segments(path):
        try:
            times.append((path / f"{number}.spool").stat().st_mtime)
        except FileNotFoundError:
            continue
    return min(max(times, default=0.0), time.time())
