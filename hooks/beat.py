"""A sign of life once a second from a side thread, and the stacks of all threads when the job stands still.

The thread reads plain attributes and counters only; whatever might block (the flight recorder) runs in a
thread of its own that nobody waits for.
"""

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Protocol

from torchvitals.hooks.collectives import Collectives
from torchvitals.hooks.dwelling import Dwelling
from torchvitals.hooks.endless_loops import endless_loop
from torchvitals.hooks.standstill import OUR_THREADS, Effort, deadlocked
from torchvitals.hooks.worker_stacks import WorkerStacks
from torchvitals.signals.records import Beat, Event, Record, Stacks

DEEPEST = 60
"""Frames kept of a stack, the innermost ones."""
OURS = str(Path(__file__).parent) + os.sep
"""Our wrappers stand in the stacks of whoever waits inside the call they wrap."""


Guard = Callable[[str, Callable[[int, str], None]], Callable[[int, str], None]]


class Job(Protocol):
    """What the thread reads, attributes that somebody else sets, and where it writes."""

    step: int
    activity: int
    busy: bool

    @property
    def phase(self) -> str: ...

    def write(self, record: Record, /) -> object: ...


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Resident memory of this process; 0 where there is no ``/proc``."""
    try:
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def python_stacks(frames: Mapping[int, FrameType], skip: int | None = None) -> dict[str, list[str]]:
    """Thread name → ``file:line function``, innermost last. ``skip`` is the id of a thread to leave out."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    stacks: dict[str, list[str]] = {}
    for ident, frame in frames.items():
        if ident == skip:
            continue
        name = names.get(ident, f"thread {ident}")
        if name in stacks:
            name = f"{name} {ident}"
        lines = [
            f"{f.f_code.co_filename}:{line} {f.f_code.co_name}"
            for f, line in traceback.walk_stack(frame)
            if not f.f_code.co_filename.startswith(OURS)
        ]
        stacks[name] = lines[:DEEPEST][::-1]
    return stacks


def _endless(frames: Mapping[int, FrameType]) -> str:
    """Where the main thread is in a loop without a way out; asleep it may be the keeper of other threads."""
    main = threading.main_thread()
    alone = all(thread is main or thread.name.startswith(OUR_THREADS) for thread in threading.enumerate())
    return endless_loop(frames.get(main.ident or 0), alone=alone)


class Heartbeat:
    """Beats until stopped; belongs to the process that started it, a forked child has none.

    Args:
        job: where the job is, read without a lock; its ``write`` is called from the side thread.
        collectives: the counters of the process groups. Their newest collectives are asked for once per stall,
            in a thread of its own.
        interval: seconds between beats.
        haste: the same from the second beat on that shows a standstill, so that one is told within five seconds,
        hasty: and up to so many seconds of it.
        workers: the stacks of loader workers, asked for with the collectives.
        guard: puts a fuse around the reading of stacks: a beat must go on whatever is found in them.
        patience: standing still for less long than this many seconds is nobody's business: a checkpoint, a flush.
            A beat less than the hang detector's, so that the evidence is there when it decides.
        shy: seconds after which a process is heard that stands still before its first step.
        factor: nor is less than this many times the usual step.
        stacks_per_stall: the first says where, the others, ``patience`` apart, whether anything moves.
        stacks_in_all: a job that stalls again and again (evaluation) is known by then.
        clock, monotonic: injected for tests.
    """

    def __init__(
        self,
        job: Job,
        *,
        collectives: Collectives | None = None,
        workers: WorkerStacks | None = None,
        guard: Guard = lambda _name, function: function,
        interval: float = 1.0,
        haste: float = 0.5,
        hasty: float = 10.0,
        patience: float = 2.8,
        factor: float = 4.0,
        shy: float = 10.0,
        stacks_per_stall: int = 4,
        stacks_in_all: int = 40,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._job = job
        self._collectives = collectives or Collectives()
        self.workers = workers or WorkerStacks()
        self._show = guard("stacks", self._write_stacks)
        self._dwelling = Dwelling()
        self._dwell = guard("dwelling", self._look_where)
        self._effort = Effort()
        self._interval, self._haste, self._hasty = interval, haste, hasty
        self._patience = patience
        self._factor = factor
        self._shy = shy
        self._stacks_per_stall = stacks_per_stall
        self._stacks_left = stacks_in_all
        self._clock = clock
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._step = -1
        self._activity = -1
        self._moved = self._stepped = monotonic()
        self._usual = 0.0
        self._shown = 0
        self._quiet = False

    def start(self, *, quietly: bool = False) -> None:
        """Start the thread, unless it runs in this process already.

        ``quietly``: the process may train or not; nothing is written before a louder start, unless it is known
        which rank it is and it has stood still for ``shy`` seconds. Ranks that never meet never take a step.
        """
        running = self._thread is not None and self._pid == os.getpid()
        self._quiet = quietly and (self._quiet or not running)
        if running:
            return
        self._pid = os.getpid()
        self._stop = threading.Event()  # a new one: after a fork the old one's lock may be held by nobody
        self._moved = self._monotonic()
        self._thread = threading.Thread(target=self._run, name="torchvitals-beat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread at once; nothing happens in a forked child."""
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        self._stop.set()
        if thread is not threading.current_thread():
            thread.join(timeout=self._interval)

    def _run(self) -> None:
        stop = self._stop
        while not stop.wait(self.pause()):
            self.beat()

    def pause(self) -> float:
        """Seconds until the next beat."""
        still = self._monotonic() - self._moved
        return min(self._haste, self._interval) if 2 * self._interval <= still < self._hasty else self._interval

    def beat(self) -> None:
        """Write one beat, and stacks when the job has stood still for too long."""
        if self._job.busy:
            self._job.activity += 1
        now, step, activity = self._monotonic(), self._job.step, self._job.activity
        if self._quiet and not self._speaks_up(now, step, activity):
            return
        sequences, memory = self._collectives.sequences(), resident_bytes()
        self._job.write(Beat(self._clock(), now, step, self._job.phase, sequences, memory, activity))
        if step != self._step:
            self._learn(now, step)
            self._dwell(step, "")
        if (step, activity) != (self._step, self._activity):
            self._step, self._activity, self._moved, self._shown = step, activity, now, 0
            self._effort.moved()
            return
        self._effort.still(now)
        still = now - self._moved
        limit = self.limit() * (self._shown + 1)
        if still > limit and self._shown < self._stacks_per_stall and self._stacks_left > 0:
            self._shown += 1
            self._stacks_left -= 1
            self._show(step, f"nothing moved for {still:.0f} s, limit {limit:.0f} s, phase {self._job.phase}")

    def _speaks_up(self, now: float, step: int, activity: int) -> bool:
        """Whether a process that has not taken a step has stood still for so long that it must be heard."""
        if (step, activity) != (self._step, self._activity):
            self._step, self._activity, self._moved = step, activity, now
        if now - self._moved > self._shy and (os.environ.get("RANK") or self._collectives.sequences()):
            self._quiet = False
        return not self._quiet

    def limit(self) -> float:
        """Seconds of standstill after which stacks are written."""
        return max(self._patience, self._factor * self._usual)

    def _learn(self, now: float, step: int) -> None:
        """The job has stepped: learn how long a step takes (the mean of the last few beats, new ones count 30 %)."""
        if self._step >= 0 and step > self._step:
            seconds = (now - self._stepped) / (step - self._step)
            self._usual = seconds if not self._usual else 0.7 * self._usual + 0.3 * seconds
        self._stepped = now

    def _look_where(self, step: int, _reason: str) -> None:
        """One look at the main thread of a job that moves: 1.3 µs in warm caches, a second apart."""
        found = self._dwelling.look(sys._current_frames().get(threading.main_thread().ident or 0))
        if found is not None:
            self._job.write(Event(self._clock(), step, "dwells", found))

    def _write_stacks(self, step: int, reason: str) -> None:
        frames = sys._current_frames()
        stacks, waits = python_stacks(frames, skip=threading.get_ident()), deadlocked(frames)
        effort, loop = self._effort.share(self._monotonic()), _endless(frames)
        cpu = -1.0 if effort is None else effort
        self._job.write(Stacks(self._clock(), step, reason, stacks, waits=waits, cpu=cpu, endless=loop))
        if self._shown == 1:
            threading.Thread(target=self._tell_others, args=(step,), name="torchvitals-fr", daemon=True).start()

    def _tell_others(self, step: int) -> None:
        """What may take a moment: the flight recorder, and the stacks of loader workers."""
        last, workers = self._collectives.last(), self.workers.ask()
        if last or workers:
            self._job.write(Stacks(self._clock(), step, "newest collectives and workers", workers, last))
