"""Follows every run in the spool directories: those already there, those that come, those that go on.

Polling with back-off: a directory listing and one ``stat`` and ``read`` per process, five times a second while a
run writes and every two seconds while it does not. Inotify would save little and fails on network file systems.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torchvitals.agent.diagnostician import Diagnostician
from torchvitals.agent.followed import is_settled, size_of
from torchvitals.agent.guard import guarded
from torchvitals.agent.incident import Incident
from torchvitals.agent.live_run import COMMIT_ROWS, LiveRun
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.store import Store, StoreFailure
from torchvitals.signals.reader import NotARunError

if TYPE_CHECKING:
    from torchvitals.agent.vitals import Vitals

log = logging.getLogger("torchvitals.agent")

COMMIT_SECONDS = 1.0
"""Rows wait no longer than this: DuckDB likes batches, people like charts that move."""
WAITING_ROWS = 5 * COMMIT_ROWS
"""While the store refuses this many rows, no more are read: the files keep the rest."""
KEEP_SECONDS = 60.0
"""An ended run stays in memory this long; then its engine is dropped and its files are only glanced at."""
GLANCE_SECONDS = 15.0
"""How often the files of runs that are over are looked at for more."""
HOUSEKEEPING_SECONDS = 3600.0

OnCommit = Callable[[str, Sequence[Incident]], None]


class _Pace:
    """When a run is to be looked at next, and when it was last committed."""

    def __init__(self, now: float) -> None:
        self.due = now
        self.interval = 0.0
        self.committed = now
        self.over_since: float | None = None


class Intake:
    """Tails the directories of all runs.

    Args:
        directories: where runs are spooled, each by another host; they may not exist yet. What has the same name in
            several of them is one run.
        store: where rows go.
        diagnose: makes the engine of a run.
        liveness: tells dead writers from silent ones.
        since: runs whose files are older than this many seconds when the agent starts are left unread.
        poll_seconds, idle_seconds: how soon and how slowly to look.
        retention: seconds after which ended runs are deleted from the store; 0 keeps them.
        on_commit: called with the run and its changed incidents after each commit.
        clock, monotonic: injected for tests.

    """

    def __init__(
        self,
        directories: Sequence[Path],
        store: Store,
        diagnose: Callable[[str], Diagnostician],
        *,
        liveness: Liveness | None = None,
        since: float = 7 * 86400.0,
        poll_seconds: float = 0.2,
        idle_seconds: float = 2.0,
        retention: float = 0.0,
        on_commit: OnCommit | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directories = list(dict.fromkeys(directories))
        self.caught_up = False
        """Whether everything that was there at the start has been read."""
        self.vitals: dict[str, Vitals] = {}
        """Snapshots of the runs in memory; replaced, never changed, so any thread may read them."""
        self.records = 0
        self.lag_seconds = 0.0
        """How old the newest record was when it was taken; 0 while there is nothing to read."""
        self.errors: dict[str, int] = {"intake": 0, "store": 0}
        self._store = store
        self._diagnose = diagnose
        self._liveness = liveness or Liveness(clock=clock)
        self._oldest = clock() - since
        self._poll, self._idle = poll_seconds, idle_seconds
        self._retention = retention
        self._on_commit = on_commit or (lambda _run, _incidents: None)
        self._clock, self._monotonic = clock, monotonic
        self._runs: dict[str, LiveRun] = {}
        self._paces: dict[str, _Pace] = {}
        self._quiet: dict[str, float] = {}
        self._housekeeping = monotonic()

    def follow(self, stop: threading.Event) -> None:
        """Work until ``stop``; then commit what waits."""
        while not stop.is_set():
            delay, problem = guarded("the intake", self.tick)
            self.errors["intake"] += bool(problem)
            stop.wait(self._idle if delay is None else delay)
        for name in list(self._runs):
            self._commit(name)

    def tick(self) -> float:
        """Look once at everything that is due; return after how many seconds to come back."""
        self._scan()
        now = self._monotonic()
        busy = False
        for name, run in list(self._runs.items()):
            if self._paces[name].due <= now:
                busy = self._visit(name, run) or busy
        self._publish()
        if not busy:
            self.caught_up = True
            self._keep_house(now)
        soonest = min((pace.due for pace in self._paces.values()), default=now + self._idle)
        return 0.0 if busy else min(max(soonest - self._monotonic(), 0.01), self._idle)

    def dropped(self) -> dict[str, int]:
        """Reason → records of the runs in memory that never arrived."""
        processes = [process for run in list(self._runs.values()) for process in run.processes]
        return {
            "corrupt": sum(process.reader.corrupt for process in processes),
            "unknown": sum(process.reader.unknown for process in processes),
            "writer": sum(process.hello.dropped for process in processes if process.hello),
        }

    def spool_bytes(self) -> int:
        """Size of the files of the runs in memory."""
        folders = [process.reader.path for run in list(self._runs.values()) for process in run.processes]
        return sum(size_of(folder) for folder in folders)

    def _scan(self) -> None:
        now = self._monotonic()
        here = [path for directory in self._directories if directory.is_dir() for path in directory.iterdir()]
        for name in sorted({path.name for path in here if path.name not in self._runs and path.is_dir()}):
            if self._quiet.get(name, 0.0) <= now:
                self._meet([directory / name for directory in self._directories], now)

    def _meet(self, places: Sequence[Path], now: float) -> None:
        """Decide about a run that is not followed: read it, or look again later."""
        name = places[0].name
        if self._is_old(places) or self._is_done(name, places):
            self._quiet[name] = now + GLANCE_SECONDS
            return
        try:
            run = LiveRun(places, self._store, self._diagnose, self._liveness, self._clock)
        except NotARunError:
            return
        self._runs[name], self._paces[name] = run, _Pace(now)

    def _is_done(self, name: str, places: Sequence[Path]) -> bool:
        """Whether the store has all of it and knows how it ended."""
        ended = self._store.query("SELECT 1 FROM runs WHERE run = ? AND ended IS NOT NULL", [name])
        return bool(ended) and is_settled(places, self._store.positions(name))

    def _is_old(self, places: Sequence[Path]) -> bool:
        files = (file for place in places for file in place.glob("*/*.spool"))
        return max((file.stat().st_mtime for file in files), default=self._oldest) < self._oldest

    def _visit(self, name: str, run: LiveRun) -> bool:
        """Advance and perhaps commit one run; whether there is likely more to read at once."""
        pace, now = self._paces[name], self._monotonic()
        stuck = run.waiting > WAITING_ROWS
        count, problem = (0, "") if stuck else self._advance(name, run)
        if problem:
            return False
        if count:
            pace.interval, pace.over_since = self._poll, None
            self.records += count
            self.lag_seconds = max(0.0, self._clock() - run.row.last_seen) if run.row.state == "running" else 0.0
        else:
            pace.interval = min(self._idle, max(self._poll, pace.interval * 1.5))
            self.lag_seconds = 0.0
        if run.waiting and (run.urgent or not count or now - pace.committed >= COMMIT_SECONDS):
            self._commit(name)
        pace.due = self._monotonic() + pace.interval
        self._retire(name, run, pace)
        return run.behind and not stuck

    def _advance(self, name: str, run: LiveRun) -> tuple[int, str]:
        count, problem = guarded(f"reading {name}", run.advance)
        if problem:
            self.errors["intake"] += 1
            self._forget(name)
        return count or 0, problem

    def _commit(self, name: str) -> None:
        run, pace = self._runs[name], self._paces[name]
        try:
            changed = run.commit()
        except StoreFailure as error:
            self.errors["store"] += 1
            log.error("%s: not stored, tried again: %s", name, str(error).splitlines()[0])  # noqa: TRY400  one line
            pace.interval = self._idle
            return
        pace.committed = self._monotonic()
        self._on_commit(name, changed)

    def _retire(self, name: str, run: LiveRun, pace: _Pace) -> None:
        """Let go of a run that is over; read one anew that went on after its end."""
        if run.reopened and not run.waiting:
            self._forget(name)
            self._quiet.pop(name, None)
        elif run.finished and not run.waiting:
            pace.over_since = pace.over_since or self._monotonic()
            if self._monotonic() - pace.over_since > KEEP_SECONDS:
                self._forget(name)

    def _forget(self, name: str) -> None:
        self._runs.pop(name, None)
        self._paces.pop(name, None)
        self._quiet[name] = self._monotonic() + GLANCE_SECONDS

    def _publish(self) -> None:
        self.vitals = {name: run.vitals.copy() for name, run in self._runs.items() if run.row.name}

    def _keep_house(self, now: float) -> None:
        if self._retention and now - self._housekeeping >= HOUSEKEEPING_SECONDS:
            self._housekeeping = now
            deleted = self._store.delete_ended_before(self._clock() - self._retention)
            log.info("%d runs deleted from the store, ended more than %.0f days ago", deleted, self._retention / 86400)
