"""How a process ends: an uncaught exception, ``sys.exit(n)``, or a signal that leaves no time to speak.

Everything chains: the job's own hooks, torchrun's ``record`` and an enabled ``faulthandler`` are left as they are.
"""

import atexit
import faulthandler
import multiprocessing.process
import multiprocessing.util
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, NoReturn, TextIO

from torchvitals.hooks import supervisors
from torchvitals.hooks.worker_failure import failure_behind
from torchvitals.signals import last_words
from torchvitals.signals.records import Event

MOST_FRAMES = 60
"""Innermost frames kept of a traceback: a recursion error has a thousand."""
LONGEST_MESSAGE = 4000
INTERRUPTIONS = 4
"""Attempts to tell of an exception: three more workers of a loader may die meanwhile."""
LAST = -1000
"""Priority of our finalizer: after the job's own."""
OURS = str(Path(__file__).parent) + os.sep
"""Our wrappers stand in tracebacks of what went wrong inside the call they wrap."""
QUOTED_FRAME = re.compile(r'^ +File "(.+)", line (\d+), in (.+)$', re.MULTILINE)


def exception_details(error: BaseException, trace: TracebackType | None = None) -> dict[str, Any]:
    """``type``, ``message`` and ``frames`` (``file:line function``, innermost last) of an exception, and its ``cause``.

    >>> try:
    ...     [][0]
    ... except IndexError as caught:
    ...     exception_details(caught)["message"]
    'list index out of range'
    """
    entries = traceback.extract_tb(trace if trace is not None else error.__traceback__)
    message = _message(error)
    frames = [f"{e.filename}:{e.lineno} {e.name}" for e in entries if not e.filename.startswith(OURS)]
    details: dict[str, Any] = {
        "type": type(error).__name__,
        "message": _shortened(message),
        "frames": [*frames, *_worker_frames(message)][-MOST_FRAMES:],
    }
    if error.__cause__ is not None:
        details["cause"] = f"{type(error.__cause__).__name__}: {_shortened(_message(error.__cause__))}"
    return details


def _shortened(message: str) -> str:
    """Beginning and end: what a loader's worker quotes ends with what it died of."""
    half = LONGEST_MESSAGE // 2
    return message if len(message) <= LONGEST_MESSAGE else f"{message[:half]}\n...\n{message[-half:]}"


def _worker_frames(message: str) -> list[str]:
    r"""The frames that torch quotes in the message of an exception that came from a loader's worker.

    >>> _worker_frames('Caught OSError ...\nOriginal Traceback (...):\n  File "a.py", line 3, in get')
    ['a.py:3 get']
    """
    _, quoted, trace = message.partition("Original Traceback")
    return [f"{file}:{line} {name}" for file, line, name in QUOTED_FRAME.findall(trace)] if quoted else []


def _innermost(trace: TracebackType | None) -> FrameType | None:
    """The frame in which a traceback ends."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame if trace is not None else None


def _message(error: BaseException) -> str:
    """``str(error)``, which is the job's code and may itself fail."""
    return "".join(traceback.format_exception_only(type(error), error)).strip().partition(": ")[2]


class _Asked(NamedTuple):
    """A ``sys.exit``: what it asked for, when and where, and the exception that was being handled there."""

    code: int
    time: float
    step: int
    line: str
    reason: dict[str, Any] | None


def _handled_in(frame: FrameType) -> dict[str, Any] | None:
    """The exception that the code of ``frame`` itself has caught and is handling: why it gives up.

    One that is being handled further out may be long past: ``except ImportError: main()``.
    """
    error = sys.exc_info()[1]
    if error is None or isinstance(error, SystemExit) or error.__traceback__ is None:
        return None
    return exception_details(error) if error.__traceback__.tb_frame is frame else None


class Exits:
    """Tells how the process ends.

    Args:
        write: takes the events; failures are its own business (it must not raise).
        step: the step in progress.
        ending: called once or more before the events, with the frame in which the job asked for its end or
            failed, ``None`` when it just ran out; what the job held is still there.
        clock: wall clock, injected for tests.
    """

    def __init__(
        self,
        write: Callable[[Event], object],
        step: Callable[[], int],
        *,
        ending: Callable[[FrameType | None], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._step = step
        self._ending = ending or (lambda _: None)
        self._clock = clock
        self._file: TextIO | None = None
        self._armed_in = 0
        """The process that ``faulthandler`` was enabled in for this file."""
        self._installed = False
        self._pid = os.getpid()
        self._trains_in = 0
        """The process that is known to train."""
        self._asked: _Asked | None = None
        """The last ``sys.exit``."""
        self._raised = False
        self._supervisor = False

    def install(self) -> "Exits":
        """Chain in front of the hooks that are there; a second call does nothing."""
        if self._installed:
            return self
        self._installed, self._pid = True, os.getpid()
        self._excepthook, sys.excepthook = sys.excepthook, self._uncaught
        self._threadhook, threading.excepthook = threading.excepthook, self._uncaught_in_thread
        self._exit, sys.exit = sys.exit, self._sys_exit
        atexit.register(self._leaving)
        return self

    def remove(self) -> None:
        """Take everything back that is still ours; what somebody chained on top is left to them."""
        if not self._installed:
            return
        self._installed = False
        if sys.excepthook == self._uncaught:
            sys.excepthook = self._excepthook
        if threading.excepthook == self._uncaught_in_thread:
            threading.excepthook = self._threadhook
        if sys.exit == self._sys_exit:
            sys.exit = self._exit
        atexit.unregister(self._leaving)
        self._disarm()

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if supervisors.is_report(kind):
            self._supervisor = True
            if self._ours():
                supervisors.report(error, Event(self._clock(), -1, "children"))
        elif self._ours():
            self._raised = True
            self._tell_uncaught(error, trace)
        self._excepthook(kind, error, trace)

    def _tell_uncaught(self, error: BaseException, trace: TracebackType | None) -> None:
        """A handler of a signal may raise amid this, as torch's does for a loader worker that died: both are told."""
        meanwhile = {}
        for _ in range(INTERRUPTIONS):
            try:
                if failure := failure_behind(error, trace):
                    meanwhile = {"meanwhile": failure}
                self._ending(_innermost(trace))
                self._event("exception", {**exception_details(error, trace), **meanwhile})
            except (RuntimeError, OSError) as second:  # torch's of a dead worker, TimeoutError of an alarm
                meanwhile = {"meanwhile": f"{type(second).__name__}: {_shortened(_message(second))}"}
            else:
                return

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if self._ours() and args.exc_value is not None and args.exc_type is not SystemExit:
            name = args.thread.name if args.thread is not None else ""
            self._event("exception", {**exception_details(args.exc_value, args.exc_traceback), "thread": name})
        self._threadhook(args)

    def _sys_exit(self, status: Any = None, /) -> NoReturn:
        """The job's ``sys.exit``: the only place where the code it asks for can be seen from inside."""
        if self._ours() and threading.current_thread() is threading.main_thread():  # elsewhere it ends a thread
            code = 0 if status is None else status if isinstance(status, int) else 1
            caller = sys._getframe(1)
            place = f"{caller.f_code.co_filename}:{caller.f_lineno} {caller.f_code.co_name}"
            self._ending(caller)
            asked = _Asked(int(code), self._clock(), self._step(), place, _handled_in(caller))
            if self._asked is None or asked.reason or (asked.code, asked.step) != (self._asked.code, self._asked.step):
                self._asked = asked  # else it is handed on, as the processes of multiprocessing do with theirs
        self._exit(status)

    def _leaving(self) -> None:
        """At exit. A code that was asked for counts unless somebody caught it and trained on."""
        if not self._ours() or self._supervisor:
            return
        details: dict[str, Any] = {"code": 1 if self._raised else 0}
        asked = self._asked
        if asked is not None and not self._raised and asked.step == self._step():
            details["code"] = asked.code
            if asked.code:
                details["line"] = asked.line
            if asked.code and asked.reason is not None:
                self._write(Event(asked.time, asked.step, "exception", asked.reason))
        self._ending(None)
        self._event("exit", details)

    def _ours(self) -> bool:
        """Whether this is the process that installed us, and not a forked child (a loader worker)."""
        return self._installed and os.getpid() == self._pid

    def _event(self, kind: str, details: dict[str, Any]) -> None:
        self._write(Event(self._clock(), self._step(), kind, details))

    def begin(self, records: Path) -> None:
        """Tell the end of this process as well, whoever forked it: it trains, and its records are in ``records``.

        A child of ``multiprocessing`` catches its exceptions itself and, forked, leaves without the exit handlers; its
        finalizers run while the exception is still being handled.
        """
        if self._installed and os.getpid() != self._trains_in:
            self._pid = self._trains_in = os.getpid()
            self._asked, self._raised, self._supervisor = None, False, False
            if multiprocessing.process.parent_process() is not None:
                multiprocessing.util.Finalize(None, self._child_ends, exitpriority=LAST)
        self.arm(records / last_words.NAME)

    def _child_ends(self) -> None:
        """The target of a process of ``multiprocessing`` has returned, or raised."""
        error = sys.exc_info()[1]
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            if self._asked is None or self._asked.code != code:
                self._asked = _Asked(code, self._clock(), self._step(), "", None)
        elif error is not None and self._ours():
            self._raised = True
            self._ending(_innermost(error.__traceback__))
            self._event("exception", exception_details(error))
        self._leaving()
        self._installed = False  # spawned, it runs the exit handlers as well

    def arm(self, path: Path) -> None:
        """Have the interpreter's C code write the stacks to ``path`` when the process dies where no Python runs.

        Not where the job has enabled ``faulthandler`` itself: it wants them elsewhere.
        """
        if not self._installed or self._armed_in == os.getpid() or (faulthandler.is_enabled() and not self._armed_in):
            return
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = path.open("a")
        except OSError:
            return
        self._armed_in = os.getpid()
        faulthandler.enable(self._file, all_threads=True)

    def _disarm(self) -> None:
        if self._file is None:
            return
        faulthandler.disable()
        self._file.close()
        self._file = None
        self._armed_in = 0
