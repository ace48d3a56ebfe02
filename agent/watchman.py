"""What the processes of a run cannot say of themselves, seen from outside: stopped, frozen, gone.

The launcher looks at them through ``/proc`` and writes what it sees under its own rank. Nothing is ever sent to
them, and of a process that is heard regularly nothing is written but that time goes on.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from torchvitals.agent.oom import OomKills
from torchvitals.signals.last_words import last_words
from torchvitals.signals.listing import first_hello, process_directories, segments
from torchvitals.signals.records import LAUNCHER_RANK, Beat, Event, Record

LOOK_SECONDS = 0.5
"""A death is to be told within three seconds, and the ranks beside it speak within one."""
UNHEARD_SECONDS = 3.0
"""Three beats that did not come."""
TOLD_AT_MOST = 4
"""After 3, 6, 12 and 24 seconds; who is silent for longer is known by then."""


class Sight(NamedTuple):
    """A process as the kernel sees it: its state letter (see proc(5)), when it started and the CPU time it took."""

    state: str
    started: int
    cpu_seconds: float


class _Watched:
    """One process of the run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rank, _, pid = path.name.partition(".")
        self.pid = pid
        self.first: Sight | None = None
        self.kills: OomKills | None = None
        hello = first_hello(path)
        self.trains = hello is not None and hello.role == "train"
        self.host = hello.host if hello is not None else ""
        self.gone = False
        self.written = (-1, -1)
        self.since = 0.0
        self.cpu_then = 0.0
        self.told = 0


class Watchman:
    """Looks after the processes of one run, from a thread of its own between :meth:`start` and :meth:`stop`.

    Only processes that carry the run's name in their environment are watched: in a container numbers differ.

    Args:
        run: the run's directory.
        write: takes the records.
        kills: counts the out-of-memory kills in the control group of a process.
        proc: the process file system.
        host: this host, as processes name it; a run directory may be shared by several.
        clock, monotonic: injected for tests.

    """

    def __init__(
        self,
        run: Path,
        write: Callable[[Record], object],
        *,
        kills: Callable[[str], OomKills] = lambda pid: OomKills(pid=pid),
        proc: Path = Path("/proc"),
        host: str = "",
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.asked: list[int] = []
        """Signals by which somebody asked the command to end; a signal handler may append."""
        self._run = run
        self._write = write
        self._kills = kills
        self._proc = proc
        self._host = host or socket.gethostname()
        self._clock, self._monotonic = clock, monotonic
        self._watched: dict[str, _Watched] = {}
        self._beat_at = 0.0
        self._asked_told = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> "Watchman":
        """Begin to look."""
        self._thread = threading.Thread(target=self._watch, name="watchman", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Look once more, at those that have ended with the command, and no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10 * LOOK_SECONDS)
        self.look()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            self.look()

    def look(self) -> None:
        """One look at everybody."""
        now = self._monotonic()
        for signal in self.asked[self._asked_told :]:
            self._asked_told += 1
            self._tell("asked_to_end", signal=signal)
        self._find()
        for process in self._watched.values():
            if not process.gone:
                self._look_at(process, now)
        if now - self._beat_at >= 2 * LOOK_SECONDS:
            self._beat_at = now
            self._write(Beat(self._clock(), now, -1, "launcher"))

    def _find(self) -> None:
        try:
            paths = list(process_directories(self._run))
        except OSError:
            return
        for path in paths:
            if path.name not in self._watched and not path.name.startswith(f"{LAUNCHER_RANK}."):
                self._watched[path.name] = _Watched(path)

    def _look_at(self, process: _Watched, now: float) -> None:
        sight = self._sight(process.pid)
        if process.first is None:
            if sight is not None and process.host == self._host and self._is_ours(process.pid):
                process.first, process.kills = sight, self._kills(process.pid)
            elif sight is None and process.host == self._host and last_words(process.path):
                self._tell_gone(process)  # it came and died between two looks
            return
        if sight is None or sight.state in "ZX" or sight.started != process.first.started:
            self._tell_gone(process)
            return
        self._listen(process, sight, now)

    def _tell_gone(self, process: _Watched) -> None:
        process.gone = True
        kills = process.kills.since() if process.kills else None
        words = {"frames": frames} if (frames := last_words(process.path)) else {}
        self._tell("process_gone", rank=int(process.rank), pid=int(process.pid), oom_kills=kills, **words)

    def _listen(self, process: _Watched, sight: Sight, now: float) -> None:
        """Tell of a process that has written nothing for some time, and what the kernel says of it."""
        written = _end_of(process.path)
        if written != process.written:
            process.written, process.since, process.cpu_then, process.told = written, now, sight.cpu_seconds, 0
            return
        due = UNHEARD_SECONDS * 2**process.told
        if process.trains and now - process.since >= due and process.told < TOLD_AT_MOST:
            process.told += 1
            self._tell(
                "unheard",
                rank=int(process.rank),
                pid=int(process.pid),
                seconds=round(now - process.since, 1),
                state=sight.state,
                cpu_seconds=round(sight.cpu_seconds - process.cpu_then, 2),
            )

    def _tell(self, kind: str, **details: object) -> None:
        self._write(Event(self._clock(), -1, kind, details))

    def _sight(self, pid: str) -> Sight | None:
        try:
            fields = (self._proc / pid / "stat").read_text().rpartition(")")[2].split()
            ticks = int(fields[11]) + int(fields[12])
            return Sight(fields[0], int(fields[19]), ticks / os.sysconf("SC_CLK_TCK"))
        except (OSError, IndexError, ValueError):
            return None

    def _is_ours(self, pid: str) -> bool:
        try:
            return f"TORCHVITALS_RUN={self._run.name}".encode() in (self._proc / pid / "environ").read_bytes()
        except OSError:
            return False


def _end_of(path: Path) -> tuple[int, int]:
    """Number and size of the newest segment: it grows with every record."""
    newest = max(segments(path), default=-1)
    try:
        return newest, (path / f"{newest}.spool").stat().st_size
    except OSError:
        return newest, -1
