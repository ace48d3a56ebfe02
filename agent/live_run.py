"""One run as the agent follows it: its files, its engine, its rows that wait for a commit.

Offsets and rows commit together. After a restart everything is read again for the engine, whose state lives
in memory only; rows at or below the committed position are not stored twice.
"""

import logging
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torchvitals.agent.diagnostician import Diagnostician
from torchvitals.agent.followed import Followed
from torchvitals.agent.guard import guarded
from torchvitals.agent.incident import Incident
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.rows import RowBatch, encode_json
from torchvitals.agent.store import RunRow, Store
from torchvitals.agent.vitals import Vitals
from torchvitals.signals.reader import Entry, RunReader, SpoolError
from torchvitals.signals.records import LAUNCHER_RANK, Axis, Event, Hello

log = logging.getLogger("torchvitals.agent")

READ_AT_ONCE = 250
"""Records taken from one process before the next one's turn, so that ranks advance side by side. The engine
takes 1.3 ms a step with all detectors, and an incident is told of after the round it is found in."""
COMMIT_ROWS = 20_000
"""Rows that are committed without waiting: an Arrow batch of this size costs DuckDB 20 to 40 ms."""


class Held(NamedTuple):
    """An entry and its place in the merged order: by time, then process, then its own order."""

    time: float
    process: str
    place: int
    entry: Entry


class LiveRun:
    """Follows one run.

    Args:
        places: its directory, and those in which other hosts record it.
        store: where rows go.
        diagnose: makes the engine of a run.
        liveness: tells dead writers from silent ones.
        clock: wall clock.

    Raises:
        NotARunError: nothing a job wrote is there (yet).

    """

    def __init__(
        self,
        places: Sequence[Path],
        store: Store,
        diagnose: Callable[[str], Diagnostician],
        liveness: Liveness,
        clock: Callable[[], float],
    ) -> None:
        self.run = places[0].name
        self.vitals = Vitals(run=self.run)
        self.records = 0
        self.finished = False
        """Whether the engine was told that nothing will follow."""
        self.reopened = False
        """Something followed nevertheless: the run must be read anew from its beginning."""
        self.behind = False
        """Whether there was more to read than one round."""
        self._reader = RunReader(*places)
        self._store = store
        self._committed = store.positions(self.run)
        self._liveness = liveness
        self._clock = clock
        self._batch = RowBatch()
        self._told: dict[str, str] = {}
        self._incidents: dict[str, Incident] = {}
        self._changed: dict[str, Incident] = {}
        self._processes: dict[str, Followed] = {}
        self._facts: dict[str, object] = {}
        self._unseen: list[dict[str, str]] = []
        self._held: list[Held] = []
        self._withdrawn: list[str] = []
        self._engine: Diagnostician | None = diagnose(self.run)
        self._dirty = False
        self.row = self._first_row()

    @property
    def waiting(self) -> int:
        """Rows and incidents that wait for a commit."""
        return len(self._batch) + len(self._changed) + self._dirty

    @property
    def urgent(self) -> bool:
        """Whether a commit should not wait: somebody wants to know, or the batch is large."""
        return bool(self._changed) or len(self._batch) >= COMMIT_ROWS

    @property
    def processes(self) -> list[Followed]:
        """Its processes so far."""
        return list(self._processes.values())

    @property
    def is_over(self) -> bool:
        """Whether the launcher of every host, or without one every process, has ended and all was read."""
        return self.row.state != "running"

    def advance(self) -> int:
        """Take what is new, a round of every process; return how many records that was."""
        self._reader.look()
        for name, reader in self._reader.processes.items():
            if name not in self._processes:
                self._processes[name] = Followed(name, reader, self._committed.get(name, (-1, 0)))
        before = self.records
        horizon = min(self._read(process) for process in self._processes.values())
        self.behind = horizon < math.inf
        self._deliver(horizon)
        count = self.records - before
        if count:
            self.reopened = self.reopened or self.finished
        else:
            self._notice_deaths()
        if self._dirty:
            self._update_row()
        return count

    def commit(self) -> list[Incident]:
        """Write what waits, in one transaction; return the incidents that were new or had changed.

        Raises:
            StoreFailure: nothing was written; everything waits for the next call.

        """
        rows = [process.row(self.run) for process in self.processes if process.hello]
        changed = list(self._changed.values())
        checked, skipped = self._checked()
        self.row.facts = encode_json(self._facts)
        self.row.checked, self.row.not_checked = encode_json(checked), encode_json([*skipped, *self._unseen])
        withdrawn = [*self._withdrawn, *(self._engine.absorbed if self._engine else ())]
        self._store.commit(self.row, rows, self._batch, changed, withdrawn, now=self._clock())
        self._batch.clear()
        self._withdrawn.clear()
        self._changed.clear()
        self._dirty = False
        return changed

    def _read(self, process: Followed) -> float:
        """Read one round of a process; return the time up to which nothing more is to be expected of it now."""
        count = 0
        try:
            for entry, is_new in process.read(READ_AT_ONCE):
                count += 1
                self._take(entry, is_new=is_new)
                self._held.append(Held(process.time, process.name, process.place, entry))
        except (SpoolError, OSError) as error:
            process.problem = str(error)
            self._unseen.append({"what": f"process {process.name}", "why": str(error)})
            log.warning("a process is not read: %s", error)
        self.records += count
        self._dirty = self._dirty or count > 0
        return process.time if count == READ_AT_ONCE else math.inf

    def _deliver(self, horizon: float) -> None:
        """Feed the engine in order of time, as ``diagnose`` does offline, up to where all processes were read."""
        self._held.sort(key=lambda held: held[:3])
        cut = bisect_right(self._held, horizon, key=lambda held: held.time)
        due, self._held = [held.entry for held in self._held[:cut]], self._held[cut:]
        if due:
            self._consult("feed", lambda engine: engine.feed(due))

    def _take(self, entry: Entry, *, is_new: bool) -> None:
        self.vitals.add(entry)
        if is_new:
            self._batch.add(entry)
        elif isinstance(entry.record, Axis):
            self._batch.declare(entry.hello.rank, entry.record, stored=True)
        if isinstance(entry.record, Event):
            self._hear(entry.record)

    def _hear(self, event: Event) -> None:
        if event.kind == "facts":
            self._facts.update(event.details)

    def _notice_deaths(self) -> None:
        """All is read: tell the engine who will not speak again, and when that is everybody."""
        for process in self.processes:
            hello = process.hello
            if hello is None or process.is_over or not self._liveness.is_gone(hello, process.last_seen):
                continue
            if not process.suspect:
                process.suspect = True
                continue
            process.dead = self._dirty = True
            if hello.rank != LAUNCHER_RANK:
                self._consult("a lost process", partial(_tell_ended, hello))
        if self._state() != "running" and not self.finished:
            self.finished = self._dirty = True
            silent = [(p.hello, p.last_seen) for p in self.processes if p.hello and p.exit_code is None]
            gone = [hello for hello, last_seen in silent if self._liveness.is_gone(hello, last_seen)]
            self._consult("the end", lambda engine: engine.finish(gone))
            self._withdraw_unknown()

    def _consult(self, what: str, question: Callable[[Diagnostician], Sequence[Incident]]) -> None:
        engine = self._engine
        if engine is None:
            return
        changed, problem = guarded(f"diagnosis of {self.run} ({what})", lambda: question(engine))
        if changed is None:
            self._engine = None
            self._unseen.append({"what": "diagnosis", "why": problem})
        for incident in changed or ():
            text = encode_json(incident)  # not by ==: an incident with a NaN in it differs from itself
            if self._told.get(incident.id) != text:
                self._told[incident.id] = text
                self._changed[incident.id] = self._incidents[incident.id] = incident

    def _state(self) -> str:
        launchers = [p for p in self.processes if p.hello and p.hello.rank == LAUNCHER_RANK]
        by_start = sorted(launchers, key=lambda p: p.hello.started if p.hello else 0.0)
        latest = {p.hello.host: p for p in by_start if p.hello}.values()
        said = any(process.exit_code is not None for process in latest)
        states = {process.state for process in (latest if said else self.processes)}
        return next((word for word in ("running", "failed", "lost") if word in states), "finished")

    def _first_row(self) -> RunRow:
        found = self._store.query("SELECT first_read FROM runs WHERE run = ?", [self.run])
        return RunRow(run=self.run, first_read=found[0]["first_read"] if found else self._clock())

    def _update_row(self) -> None:
        hellos = [process.hello for process in self.processes if process.hello]
        if not hellos:
            return
        speaker = min(hellos, key=lambda hello: hello.rank)
        workers = [hello for hello in hellos if hello.rank != LAUNCHER_RANK] or [speaker]
        last_seen = max(process.last_seen for process in self.processes)
        state = self._state() if self.finished else "running"
        vitals = self.vitals
        self.row = RunRow(
            run=self.run,
            name=speaker.name or self.run,
            state=state,
            role=workers[-1].role,
            host=speaker.host,
            command=speaker.command,
            world_size=max(hello.world_size for hello in workers),
            ranks=len({hello.rank for hello in workers if hello.rank != LAUNCHER_RANK}),
            steps=vitals.steps,
            started=min(hello.started for hello in hellos),
            last_seen=last_seen,
            ended=last_seen if state != "running" else None,
            loss=vitals.loss,
            steps_per_second=vitals.steps_per_second,
            first_read=self.row.first_read,
        )
        self._update_vitals()

    def _update_vitals(self) -> None:
        vitals, row = self.vitals, self.row
        vitals.name, vitals.role, vitals.state = row.name, row.role, row.state
        vitals.world_size, vitals.ended = row.world_size, row.ended
        vitals.alive = {p.hello.rank: not p.is_over for p in self.processes if p.hello}
        vitals.alive.pop(LAUNCHER_RANK, None)
        absorbed = self._engine.absorbed if self._engine else {}
        listed = [incident for incident in self._incidents.values() if incident.id not in absorbed]
        vitals.findings = dict(Counter((f.kind, str(f.severity)) for incident in listed for f in incident.findings))

    def _withdraw_unknown(self) -> None:
        """What an earlier engine said and this one, knowing the whole run, does not."""
        if self._engine is not None:
            stored = self._store.query("SELECT id FROM incidents WHERE run = ?", [self.run])
            self._withdrawn += [row["id"] for row in stored if row["id"] not in self._told]

    def _checked(self) -> tuple[list[str], list[dict[str, str]]]:
        engine = self._engine
        if engine is None:
            return [], []
        seen = guarded("what was checked", lambda: (list(engine.checked()), list(engine.not_checked())))[0]
        checked, skipped = seen or ([], [])
        return checked, [{"what": item.what, "why": item.why} for item in skipped]


def _tell_ended(hello: Hello, engine: Diagnostician) -> Sequence[Incident]:
    return engine.ended(hello)
