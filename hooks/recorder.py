"""The hub of one process: what the probes feel goes through here into the spool, and what it costs is counted."""

import logging
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from torchvitals.hooks import identity
from torchvitals.hooks.budget import Budget
from torchvitals.hooks.fuse import Fuse
from torchvitals.signals.records import Event, Record, Step
from torchvitals.signals.spool import SpoolWriter, default_directory

log = logging.getLogger("torchvitals")

PHASES = ("init", "data", "forward", "backward", "optimizer", "eval", "idle", "done")


Kept = tuple[int, float, float | None, float | None, float | None, float, Mapping[str, Any], int, bool]
"""A counted step: number, time, loss, trip-wire norm, how long it took and waited, what the job logged, whose, and
whether its steps are the job's."""


class Recorder:
    """What the probes of one process share.

    Nothing is written, and no directory made, before the first record: a process that imports torch and
    never trains (a loader worker, a launcher) leaves no trace.

    Args:
        directory: of all runs; the default is :func:`torchvitals.signals.spool.default_directory`.
        overhead: share of step time the hooks may take.
        role: ``train`` or ``serve``.
        clock: wall clock, injected for tests.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        overhead: float = 0.01,
        role: str = "train",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory or default_directory()
        self.budget = Budget(overhead)
        self.fuse = Fuse(self._blown)
        self.clock = clock
        self.step = 0
        """The step in progress of the first optimizer; for a service the number of the next request."""
        self.activity = 0
        """Phases entered so far: what a beat says of a job whose step does not move."""
        self.busy = False
        """Whether work of our own is under way, seconds on a busy machine, in which the job does not stand still."""
        self.phase = "init"
        """What the job is doing, one of ``PHASES``."""
        self.cost = 0.0
        """Seconds spent in our own code since the last step was closed."""
        self.spent = dict.fromkeys(PHASES, 0.0)
        """Seconds spent by phase since the last step was closed."""
        self.writer: SpoolWriter | None = None
        self.opened: Callable[[Path], None] = lambda _: None
        """Told the directory of this process's records when there are any."""
        self.kept: deque[Kept] = deque()
        """Steps that were only counted, written before the next record."""
        self._keeping = threading.RLock()
        self.facts: dict[str, Any] = {}
        self._facts_sent: dict[str, Any] = {}
        self.role = role
        self._pid = os.getpid()

    def enter(self, phase: str) -> None:
        """The job begins to do something else."""
        self.phase = phase
        self.activity += 1

    def write(self, record: Record) -> bool:
        """Append a record; ``False`` when it was lost. The spool opens on the first one."""
        return self.open().write(record)

    def open(self) -> SpoolWriter:
        """The writer of this process, made on first use: rank and world size are known by then."""
        if self.writer is None or self._pid != os.getpid():
            if self._pid != os.getpid():  # forked: what is kept is the parent's, and its lock may be held by nobody
                self._pid, self.kept, self._keeping = os.getpid(), deque(), threading.RLock()
            self.writer = SpoolWriter(self.directory, identity.hello(self.role), clock=self.clock)
            self.opened(self.writer.path)
        if self.kept:
            self._write_kept(self.writer)
        return self.writer

    def _write_kept(self, writer: SpoolWriter) -> None:
        """Under a lock: the thread that beats may be in the middle of it, and steps are written in their order."""
        with self._keeping:
            rows = [self.kept.popleft() for _ in range(len(self.kept))]
            if rows:
                writer.steps(_steps_of(rows, writer))

    def event(self, kind: str, **details: Any) -> None:
        """Write an event of this moment."""
        self.write(Event(self.clock(), self.step, kind, details))

    def not_checked(self, what: str, why: str) -> None:
        """Say that something cannot be seen."""
        self.event("not_checked", what=what, why=why)

    def learn(self, **facts: Any) -> None:
        """Note facts about the code; they are sent once, and again when they change."""
        self.facts.update(facts)

    def send_facts(self) -> None:
        """Write the facts that have not been sent yet."""
        changed = {key: value for key, value in self.facts.items() if self._facts_sent.get(key) != value}
        if changed:
            self._facts_sent.update(changed)
            self.event("facts", **changed)

    def close_step(self, seconds: float, counted: int = 0, light: int = 0) -> None:
        """A watched step has ended, ``seconds`` after the one before and with ``counted`` steps in between."""
        self.budget.close_step(seconds, self.cost, counted, light)
        self.cost = 0.0
        for phase in self.spent:
            self.spent[phase] = 0.0

    def close(self) -> None:
        """Close the spool."""
        if self.writer is not None:
            self.open().close()
            self._tell_losses(self.writer)

    def _tell_losses(self, writer: SpoolWriter) -> None:
        """Where the spool could not be written nobody reads it there: the job's own output is what is left."""
        if writer.failure and writer.dropped and self._pid == os.getpid():
            log.warning(
                "torchvitals: %d records were lost (%s); make room in %s, or choose another directory with --dir",
                writer.dropped, writer.failure, self.directory,
            )  # fmt: skip

    def _blown(self, probe: str, error: Exception) -> None:
        frames = traceback.format_exception(error)
        log.warning("torchvitals: the probe %r failed and was removed; the job goes on\n%s", probe, "".join(frames))
        self.event("fuse", probe=probe, error=f"{type(error).__name__}: {error}", frames=frames[-3:])


def _steps_of(rows: Iterable[Kept], writer: SpoolWriter) -> list[Step]:
    """What was kept of some steps as the spool takes it, 0.7 µs each; a loss that the job logged itself holds."""
    loss_at, norm_at, seconds_at, waited_at = writer.indices(("loss", "tripwire_norm", "step_seconds", "data_seconds"))
    steps = []
    for step, told, loss, norm, seconds, waited, logged, optimizer, leads in rows:
        values: dict[int | str, float] = {}
        if loss is not None:
            values[loss_at] = loss
        if norm is not None:
            values[norm_at] = norm
        if seconds is not None:
            values[seconds_at] = seconds
        if waited:
            values[waited_at] = waited
        if logged and (more := numbers(logged)):
            values.update(zip(writer.indices(more), more.values(), strict=True))
        steps.append(Step(step, told, values, optimizer, leads))
    return steps


def finite_or_none(value: Any) -> float | None:
    """``value`` as a float, ``None`` when it is not a number at all; NaN and Inf are numbers."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The entries of ``values`` that are numbers, 0-d tensors included."""
    return {name: number for name, value in values.items() if (number := finite_or_none(value)) is not None}
