"""What else can be seen of a job that stands still: whether it computes, what it waits for, what its workers do.

All of it is read from side threads and from ``/proc``; nothing here stops or asks the job's own threads.
"""

import linecache
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType

WAITING = {
    "threading.py": {"wait", "wait_for", "acquire", "join", "_wait_for_tstate_lock", "__enter__"},
    "queue.py": {"get", "put", "join"},
    "queues.py": {"get", "put"},
    "connection.py": {"wait", "poll", "_poll", "recv", "recv_bytes", "_recv", "_recv_bytes"},
    "synchronize.py": {"wait", "acquire", "__enter__"},
}
"""Functions of the standard library in which a thread waits for another one; ``time.sleep`` is none of them."""
OUR_THREADS = "torchvitals"


def waits_forever(frame: FrameType | None) -> str:
    """Where a thread waits for another thread without a time limit: ``file:line function``; empty where it does not.

    The outermost of the waiting functions tells the limit, which is its local ``timeout``. A bare lock has no frame
    of its own: it is known by the text of the line.
    """
    outermost = None
    while frame is not None and _is_waiting(frame):
        outermost, frame = frame, frame.f_back
    if outermost is None:
        return _at(frame) if frame is not None and _takes_a_lock(frame) else ""
    known = outermost.f_locals
    limit = known.get("timeout")
    limited = (isinstance(limit, int | float) and limit >= 0) or known.get("block") is False
    return "" if limited else _at(outermost)


def _is_waiting(frame: FrameType) -> bool:
    code = frame.f_code
    return code.co_name in WAITING.get(os.path.basename(code.co_filename), ())  # noqa: PTH119 (once per frame)


def _takes_a_lock(frame: FrameType) -> bool:
    """Whether the line a frame stands on acquires a lock and nothing else, as far as its text tells."""
    text = linecache.getline(frame.f_code.co_filename, frame.f_lineno or 0).strip()  # None: between two lines
    return (".acquire(" in text and "timeout" not in text) or (text.startswith("with ") and "lock" in text.lower())


def _at(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"


def deadlocked(frames: Mapping[int, FrameType], main: int | None = None) -> str:
    """Where the main thread waits forever while every other Python thread waits, too; empty when anybody is at work.

    A thread that writes a checkpoint to a socket uses no CPU either, but it does not wait for a thread.
    """
    main = threading.main_thread().ident if main is None else main
    place = waits_forever(frames.get(main or 0))
    if not place:
        return ""
    ours = {thread.ident for thread in threading.enumerate() if thread.name.startswith(OUR_THREADS)}
    others = [frame for ident, frame in frames.items() if ident != main and ident not in ours]
    return place if all(_is_waiting(frame) or _takes_a_lock(frame) for frame in others) else ""


def children(pid: int, proc: Path = Path("/proc")) -> Iterator[int]:
    """The processes that ``pid`` has started and that have not ended, their children included."""
    for listing in (proc / str(pid) / "task").glob("*/children"):
        try:
            found = [int(word) for word in listing.read_text().split()]
        except (OSError, ValueError):
            continue
        for child in found:
            yield child
            yield from children(child, proc)


def cpu_seconds(pid: int | None = None, proc: Path = Path("/proc")) -> float | None:
    """CPU time of a process and its living children; ``None`` where there is no ``/proc``."""
    pid = os.getpid() if pid is None else pid
    ticks = [_ticks(proc / str(each) / "stat") for each in (pid, *children(pid, proc))]
    return sum(tick for tick in ticks if tick is not None) if ticks[0] is not None else None


def _ticks(stat: Path) -> float | None:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


class Effort:
    """How much CPU time the process and its children have used since it was last seen to move."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._since: tuple[float, float] | None = None

    def moved(self) -> None:
        """The job moves: what it uses is its own business."""
        self._since = None

    def still(self, now: float) -> None:
        """The job has not moved; the first time this is noted."""
        if self._since is None:
            used = cpu_seconds(proc=self._proc)
            self._since = None if used is None else (now, used)

    def share(self, now: float) -> float | None:
        """CPU seconds per second since then; ``None`` when it is not known."""
        used = cpu_seconds(proc=self._proc)
        if self._since is None or used is None or now <= self._since[0]:
            return None
        return max(0.0, used - self._since[1]) / (now - self._since[0])
