"""One process of a run as the agent follows it: what it said of itself and how far it was read."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from torchvitals.agent.store import ProcessRow
from torchvitals.signals.reader import Entry, ProcessReader, RunReader, SpoolError
from torchvitals.signals.records import Event, Hello, Requests, Step


class Followed:
    """One process of the run and how far it was read.

    Args:
        name: of the process among those of its run, see :class:`torchvitals.signals.reader.RunReader`.
        reader: reads its files.
        committed: how far the store has it.

    """

    def __init__(self, name: str, reader: ProcessReader, committed: tuple[int, int]) -> None:
        self.name = name
        self.reader = reader
        self.committed = committed
        self.last_step = -1
        self._trains = False
        """Whether it has stepped, see :class:`torchvitals.agent.engine.Process`."""
        self.last_seen = 0.0
        self.time = 0.0
        """Of the last entry, in the order that merges processes; never goes back."""
        self.place = 0
        """How many entries have been read."""
        self.exit_code: int | None = None
        self.dead = False
        """Gone without a word; the engine has been told."""
        self.suspect = False
        """It was gone at the last look; what it wrote just before is read first."""
        self.problem = ""
        self._stream: Iterator[Entry] | None = None

    @property
    def hello(self) -> Hello | None:
        """Who writes; ``None`` before its first record."""
        return self.reader.hello

    @property
    def is_over(self) -> bool:
        """Whether it has ended, by its own word or not, or cannot be read."""
        return self.exit_code is not None or self.dead or bool(self.problem)

    @property
    def state(self) -> str:
        """``running``, ``finished``, ``failed`` or ``lost``."""
        if self.exit_code is not None:
            return "failed" if self.exit_code else "finished"
        return "lost" if self.dead or self.problem else "running"

    def read(self, count: int) -> Iterator[tuple[Entry, bool]]:
        """Up to ``count`` new entries, each with whether its rows are to be stored."""
        if self.problem:
            return
        self._stream = self._stream or self.reader.read()
        taken = 0
        for taken, entry in enumerate(itertools.islice(self._stream, count), start=1):  # noqa: B007
            self._note(entry)
            yield entry, self.reader.position > self.committed
        if taken < count:
            self._stream = None

    def row(self, run: str) -> ProcessRow:
        """What the store keeps of it."""
        hello = self.hello or Hello()
        segment, position = max(self.reader.position, self.committed)
        return ProcessRow(
            run=run,
            process=self.name,
            rank=hello.rank,
            pid=hello.pid,
            host=hello.host,
            segment=segment,
            position=position,
            last_step=self.last_step,
            last_seen=self.last_seen,
            state=self.state,
            dropped=hello.dropped,
            corrupt=self.reader.corrupt + self.reader.unknown,
        )

    def _note(self, entry: Entry) -> None:
        record = entry.record
        self.place += 1
        self.time = max(self.time, record.started if isinstance(record, Hello) else getattr(record, "time", 0.0))
        self.last_seen = max(self.last_seen, entry.hello.started, float(getattr(record, "time", 0.0)))
        self.dead = self.suspect = False
        if isinstance(record, Step) and record.counts:
            self.last_step = record.step
            self._trains = entry.hello.role != "serve"
        elif isinstance(record, Requests) and not self._trains:
            self.last_step = record.first + len(record.latencies) // 4 - 1
        elif isinstance(record, Event) and record.kind in ("exit", "command_exit"):
            self.exit_code = _exit_code(record)


def _exit_code(event: Event) -> int:
    code = event.details.get("code")
    if isinstance(code, int):
        return code
    return 128 + int(event.details.get("signal") or 0) if event.details.get("signal") else 0


def is_settled(places: Sequence[Path], positions: dict[str, tuple[int, int]]) -> bool:
    """Whether the store has everything the files of a run hold, so that they need not be read again."""
    try:
        reader = RunReader(*places)
        return all(_end(process.path) == positions.get(name) for name, process in reader.processes.items())
    except (SpoolError, OSError):
        return False


def _end(path: Path) -> tuple[int, int]:
    newest = max((int(file.stem) for file in path.glob("*.spool") if file.stem.isdigit()), default=-1)
    return newest, (path / f"{newest}.spool").stat().st_size


def size_of(path: Path) -> int:
    """Bytes of a process's segments; 0 once they are deleted."""
    try:
        return sum(file.stat().st_size for file in path.glob("*.spool"))
    except FileNotFoundError:
        return 0
