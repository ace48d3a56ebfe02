"""The stacks of data loader workers: forked processes without a thread of ours, asked only when the job stands still.

A worker inherits an anonymous file and a C signal handler that writes its Python stacks there (``faulthandler``).
The handler is for a real-time signal that nobody uses, restarts interrupted system calls, and works while the
worker's main thread waits for a lock. Only a process that has it installed is ever sent the signal: the kernel
shows the set of caught signals, and any other process would be ended by it.
"""

import faulthandler
import multiprocessing.process
import os
import signal
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from torchvitals.signals.last_words import stack_of

ASKING = getattr(signal, "SIGRTMIN", 0) + 11 if hasattr(signal, "SIGRTMIN") else 0
"""In the middle of the real-time signals, of which glibc keeps the first two."""
ANSWER_SECONDS = 0.5
"""A stack is written within a millisecond; a worker that the kernel holds (state D) answers when it is let go."""
MOST_WORKERS = 8
BEGINS = "_worker_loop"
"""What lies outside of this function is the stack of the parent at the fork."""


_armed: "weakref.WeakSet[WorkerStacks]" = weakref.WeakSet()
_file = -1
"""One for the process, however many monitors it has: a child has one handler, which writes to one file."""


class WorkerStacks:
    """Arms the children of this process and reads what they write.

    Args:
        proc: the process file system.
        wait: waits a moment for an answer; injected for tests.

    """

    def __init__(self, proc: Path = Path("/proc"), wait: Callable[[float], None] = time.sleep) -> None:
        self._proc = proc
        self._wait = wait

    def arm(self) -> bool:
        """Have every child that is forked from now on ready to answer; ``False`` where that cannot be."""
        global _file  # noqa: PLW0603 (one for the process)
        if not ASKING or not hasattr(os, "register_at_fork") or not hasattr(faulthandler, "register"):
            return False
        if _file < 0:
            try:
                _file = _anonymous_file()
            except OSError:
                return False
            os.register_at_fork(after_in_child=_in_child)
        _armed.add(self)
        return True

    def disarm(self) -> None:
        """Later children are left alone."""
        _armed.discard(self)

    def ask(self) -> dict[str, list[str]]:
        """``worker <pid>`` → ``file:line function``, innermost last; only of those that can answer."""
        found = {}
        for pid in list(_forked())[:MOST_WORKERS]:
            if self._answers(pid) and (frames := self._ask(pid)):
                found[f"worker {pid}"] = frames
        return found

    def _answers(self, pid: int) -> bool:
        """Whether the child catches our signal and still holds our file under the same number."""
        if self not in _armed:
            return False
        try:
            status = (self._proc / str(pid) / "status").read_text()
            caught = int(status.partition("SigCgt:")[2].split()[0], 16)
            same = (self._proc / str(pid) / "fd" / str(_file)).stat().st_ino == os.fstat(_file).st_ino
        except (OSError, IndexError, ValueError):
            return False
        return bool(caught >> (ASKING - 1) & 1) and same

    def _ask(self, pid: int) -> list[str]:
        begin = os.fstat(_file).st_size
        try:
            os.kill(pid, ASKING)
        except OSError:
            return []
        frames: list[str] = []
        for _ in range(10):
            self._wait(ANSWER_SECONDS / 10)
            text = os.pread(_file, 1 << 20, begin).decode(errors="replace")
            frames = frames_of(text)
            if frames and text.endswith("\n"):
                break
        return frames


def _in_child() -> None:
    """A process has been forked; one in which the job itself uses the signal is left alone."""
    if _armed and signal.getsignal(ASKING) is signal.SIG_DFL:
        faulthandler.register(ASKING, _file, all_threads=False, chain=False)


def frames_of(text: str) -> list[str]:
    r"""The stack that ``faulthandler`` wrote, turned round.

    >>> frames_of('Stack (most recent call first):\n  File "a.py", line 3 in get\n  File "b.py", line 9 in main\n')
    ['b.py:9 main', 'a.py:3 get']
    """
    frames = stack_of(text)
    begins = max((number for number, frame in enumerate(frames) if frame.endswith(BEGINS)), default=-1)
    return frames[begins + 1 :]


def _forked() -> Iterable[int]:
    """The processes that ``multiprocessing`` has started here, read without touching them.

    ``active_children()`` would reap those that have ended, under the feet of the loader that waits for them.
    """
    known = getattr(multiprocessing.process, "_children", ())
    return [child.pid for child in list(known) if getattr(child, "pid", None)]


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("torchvitals-stacks")
    descriptor, name = tempfile.mkstemp(prefix="torchvitals-")
    os.unlink(name)  # noqa: PTH108 (no path is kept)
    return descriptor
