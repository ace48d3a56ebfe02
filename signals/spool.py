"""The writing side of the spool: append-only segment files that survive the crash they are to explain.

Layout: ``$TORCHVITALS_DIR/<run_id>/<rank>.<pid>/<n>.spool``. One ``os.write`` on an ``O_APPEND`` file per
record, or for a few steps together where steps are too short for one each, so a SIGKILL loses nothing
that was written. A write that
fails (disk full, directory gone) is counted and never raised: the job goes on.
"""

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import msgspec
from torchvitals.signals import frames
from torchvitals.signals.records import Axis, Event, Hello, Record, Step

SEGMENT_BYTES = 8 << 20
PROCESS_BYTES = 256 << 20
RETRY_AFTER = 512
"""After a failed write, this many records are dropped before the file is tried again."""
LOOK_EVERY = 256
"""After so many records the writer looks whether its file still has a name: one fstat, 0.5 µs."""

SIGNAL_AXIS = "signal"


def default_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where runs live: ``TORCHVITALS_DIR``, else ``torchvitals`` in the XDG state home (``~/.local/state``).

    >>> str(default_directory({"TORCHVITALS_DIR": "/data/vitals"}))
    '/data/vitals'
    """
    if chosen := environ.get("TORCHVITALS_DIR"):
        return Path(chosen).expanduser()
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "torchvitals"


class SpoolWriter:
    """Writes the records of one process.

    Args:
        directory: the directory of all runs.
        hello: who writes; its ``segment``, ``started``, ``monotonic`` and ``dropped`` are filled in here.
        segment_bytes: a segment is closed when it is at least this long.
        process_bytes: beyond this the oldest segments but the first go; the first holds how the job began.
        clock, monotonic: injected for tests.

    The writer belongs to the process that made it: after a fork the child's writes are ignored. Threads may
    share it. It never raises for the file system's sake; a record that msgpack cannot hold is a ``TypeError``,
    ``OverflowError`` or ``UnicodeEncodeError`` and the caller's mistake.

    """

    def __init__(
        self,
        directory: Path,
        hello: Hello,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        process_bytes: int = PROCESS_BYTES,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = directory / hello.run / f"{hello.rank}.{hello.pid or os.getpid()}"
        self.dropped = 0
        """Records lost so far: not written, or deleted with their segment."""
        self.failure = ""
        """Why the last write failed, empty while all is well."""
        self._hello = msgspec.structs.replace(
            hello, pid=hello.pid or os.getpid(), started=clock(), monotonic=monotonic()
        )
        self._segment_bytes = segment_bytes
        self._process_bytes = process_bytes
        self._clock = clock
        self._owner = os.getpid()
        # Without it a thread could write into a descriptor that another has closed, which may be the job's by then.
        # Re-entrant, because a signal handler of the job may log in the middle of a write.
        self._lock = threading.RLock()
        self._descriptor = -1
        self._written = 0
        self._records = 0
        self._first_segment = self._next_segment = _free_segment(self.path)
        self._sizes: dict[int, tuple[int, int]] = {}
        self._axes: dict[str, Axis] = {}
        self._signals: dict[str, int] = {}
        self._skip = 0
        self._told = 0

    def write(self, record: Record) -> bool:
        """Append one record; ``False`` when it was lost."""
        if os.getpid() != self._owner:
            return False
        with self._lock:
            if isinstance(record, Axis):
                self._axes[record.key] = record
            return self._append(frames.encode(record))

    def step(
        self, step: int, seconds: float, values: Mapping[str, float], optimizer: int = 0, *, leads: bool | None = None
    ) -> bool:
        """Append a :class:`Step`, with names sent once and indices afterwards."""
        indexed: dict[int | str, float] = dict(zip(self.indices(values), values.values(), strict=True))
        return self.write(Step(step, seconds, indexed, optimizer, leads))

    def steps(self, steps: Sequence[Step]) -> bool:
        """Append several steps by one write; their values have :meth:`indices` for names."""
        if os.getpid() != self._owner:
            return False
        with self._lock:
            return self._append(b"".join(map(frames.encode, steps)), len(steps))

    def indices(self, names: Collection[str]) -> list[int]:
        """What stands for ``names`` in a step; a name that is new is written down first."""
        known = self._signals
        try:
            return [known[name] for name in names]
        except KeyError:
            self._learn(names)
            return [known[name] for name in names]

    def close(self) -> None:
        """Close the file; a later write opens a new segment."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
            if descriptor >= 0:
                with contextlib.suppress(OSError):  # a network file system reports a lost write only here
                    os.close(descriptor)

    def _learn(self, names: Collection[str]) -> None:
        with self._lock:
            for name in names:
                self._signals.setdefault(name, len(self._signals))
            self.write(Axis(SIGNAL_AXIS, SIGNAL_AXIS, list(self._signals)))

    def _append(self, data: bytes, records: int = 1) -> bool:
        if self._skip:
            self._skip -= 1
            self.dropped += records
            return False
        try:
            if self._descriptor < 0 or self._written >= self._segment_bytes or self._deleted():
                self._open_segment()
            self._put(data, records)
        except OSError as error:
            self._fail(error, records)
            return False
        return True

    def _deleted(self) -> bool:
        """Whether somebody removed the file under us, asked now and then; what went with it counts as dropped."""
        if self._records % LOOK_EVERY or os.fstat(self._descriptor).st_nlink:
            return False
        self.dropped += self._records
        self.failure = "the segment file was deleted"
        self._records = self._written = 0
        return True

    def _put(self, data: bytes, records: int = 1) -> None:
        count = os.write(self._descriptor, data)
        self._written += count
        if count < len(data):
            raise OSError(errno.ENOSPC, f"wrote {count} of {len(data)} bytes")
        self._records += records

    def _open_segment(self) -> None:
        self.close()
        if self._next_segment > self._first_segment:
            self._sizes[self._next_segment - 1] = (self._written, self._records)
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room()
        name = self.path / f"{self._next_segment}.spool"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(name, flags, 0o600)
        written, records = self._written, self._records
        self._written = self._records = 0
        try:
            self._begin_segment()
        except OSError:
            # A disk that stays full must not fill with segments that hold nothing.
            self._written, self._records = written, records
            name.unlink(missing_ok=True)
            raise
        self._records = 0
        self._next_segment += 1

    def _begin_segment(self) -> None:
        """What lets a segment stand alone: who writes, all axes, and what was lost before."""
        self._put(frames.encode(msgspec.structs.replace(self._hello, segment=self._next_segment, dropped=self.dropped)))
        for axis in self._axes.values():
            self._put(frames.encode(axis))
        if self.dropped > self._told:
            details = {"records": self.dropped, "why": self.failure or f"over {self._process_bytes} bytes"}
            self._put(frames.encode(Event(self._clock(), -1, "lost", details)))
            self._told = self.dropped

    def _make_room(self) -> None:
        """Delete the oldest segments but the first while the closed ones and a new one exceed the limit."""
        while sum(size for size, _ in self._sizes.values()) + self._segment_bytes > self._process_bytes:
            oldest = min((number for number in self._sizes if number > self._first_segment), default=None)
            if oldest is None:
                return
            _, records = self._sizes.pop(oldest)
            self.dropped += records
            (self.path / f"{oldest}.spool").unlink(missing_ok=True)

    def _fail(self, error: OSError, records: int) -> None:
        self.dropped += records
        self.failure = f"{type(error).__name__}: {error}"
        self._skip = RETRY_AFTER
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # already gone with its file system
                os.close(descriptor)


def _free_segment(path: Path) -> int:
    """The first number behind all segments in ``path``.

    Containers hand out the same pid again, so a restarted rank may find the files of the one before it; a
    reader that has passed segment 0 would never see what is appended to it.
    """
    try:
        numbers = [int(file.stem) for file in path.glob("*.spool") if file.stem.isdecimal()]
    except OSError:
        return 0
    return max(numbers, default=-1) + 1
