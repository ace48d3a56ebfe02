"""From records to findings: the same engine runs live in the agent and offline in ``diagnose``."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec
from torchvitals.agent.crew import Crew
from torchvitals.agent.false_alarms import asked_of
from torchvitals.agent.history import History
from torchvitals.agent.watch import RecordWatch
from torchvitals.detectors import DETECTORS, RECORD_DETECTORS
from torchvitals.detectors.allowance import Allowance
from torchvitals.detectors.detector import Detector, Finding, RecordDetector, Status
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import LAUNCHER_RANK, AnyRecord, Event, Hello, Requests, Step, Window

Key = tuple[int, int, str]
"""Rank, number and host of a process: every container begins to number at 1."""


class NotChecked(msgspec.Struct, frozen=True):
    """What was not looked at, and why."""

    what: str
    why: str


class Process(msgspec.Struct):
    """One process of the run, as far as its records tell."""

    hello: Hello
    last_step: int = -1
    requests: int = 0
    """Recorded behind its training: those of a process that only serves are its steps."""
    last_seen: float = 0.0
    exit_code: int | None = None
    exception: str = ""
    gone: bool = False
    """It ended without saying so."""
    trains: bool = False
    """Whether it has stepped: what it answers beside or after that counts requests, which are not its steps."""

    def note(self, record: AnyRecord) -> None:
        """Take what ``record`` says about the process itself."""
        self.last_seen = max(self.last_seen, getattr(record, "time", self.hello.started))
        if isinstance(record, Step) and record.counts:
            self.last_step = record.step
            self.trains = self.hello.role != "serve"
        elif isinstance(record, Requests) and self.trains:
            self.requests += len(record.latencies) // 4
        elif isinstance(record, Requests):
            self.last_step = record.first + len(record.latencies) // 4 - 1
        elif isinstance(record, Window) and not self.trains:
            self.last_step = max(self.last_step, record.first + record.requests - 1)
        elif isinstance(record, Event) and record.kind in ("exit", "command_exit"):
            self.exit_code = int(record.details.get("code") or 0)
        elif isinstance(record, Event) and record.kind == "exception":
            self.exception = str(record.details.get("type", "an exception"))


class Noted(NamedTuple):
    """A finding and the crew it is about."""

    crew: Crew
    finding: Finding


class Engine:
    """Feeds one run's records to its detectors.

    ``feed`` and ``finish`` return new findings; the order is a function of the records, not of how the
    processes were interleaved.

    Args:
        run_id: the run.
        detectors, record_detectors: who watches.
        allowance: false alarms they may raise, for a run that was not started with a number of its own.
        insist: whether ``allowance`` holds in any case.

    """

    def __init__(
        self,
        run_id: str,
        detectors: Sequence[type[Detector]] = DETECTORS,
        record_detectors: Sequence[type[RecordDetector]] = RECORD_DETECTORS,
        *,
        allowance: Allowance | None = None,
        insist: bool = False,
    ) -> None:
        self.run_id = run_id
        self.processes: dict[Key, Process] = {}
        """The launcher of each host has rank -1."""
        self.launcher_events: list[Event] = []
        self.crews: list[Crew] = []
        self.noted: list[Noted] = []
        self._classes = tuple(detectors)
        self._record_classes = tuple(record_detectors)
        self._records = RecordWatch(self._record_classes)
        self._crew_of: dict[Key, Crew] = {}
        self._launcher_crew: Crew | None = None
        self._allowance = allowance or Allowance()
        self._insist = insist

    def feed(self, entry: Entry) -> list[Finding]:
        """Take one entry; entries of one process come in order, processes may interleave."""
        hello, record = entry.hello, entry.record
        key = _key(hello)
        process = self.processes.get(key)
        if process is None:
            process = self.processes[key] = Process(hello)
        process.hello = hello
        process.note(record)
        if hello.rank == LAUNCHER_RANK:
            return self._launcher(hello, record)
        crew = self._crew_of.get(key)
        if crew is None:
            crew = self._crew_of[key] = self._enlist(hello)
        return self._keep(crew, crew.feed(entry))

    def ended(self, hello: Hello) -> list[Finding]:
        """Wait no more for this process: it is known to be gone, whatever it said."""
        crew = self._crew_of.get(_key(hello))
        return self._keep(crew, crew.end(hello.rank)) if crew else []

    def add(self, finding: Finding) -> None:
        """Note what was found elsewhere than in the records: in dumps that lie beside them."""
        self._keep(self.newest, [finding])

    def finish(self, gone: Sequence[Hello] = ()) -> list[Finding]:
        """Nothing will follow. ``gone`` are the processes that ended without saying so."""
        for hello in gone:
            if process := self.processes.get(_key(hello)):
                process.gone = True
        found: list[Finding] = []
        for crew in self.crews:
            found.extend(self._keep(crew, crew.finish()))
        if self.processes:
            found.extend(self._keep(self.newest, self._records.finish(gone)))
        return found

    @property
    def allowance(self) -> Allowance:
        """How many false alarms are expected in a month of this run: as it was started, or as this engine was told."""
        own = None if self._insist else asked_of(self.launcher_events)
        return self._allowance if own is None else Allowance(own)

    @property
    def newest(self) -> Crew:
        """The crew that started last; while nobody has trained, the launcher's own, which has no ranks.

        Raises:
            ValueError: nothing was fed yet.

        """
        if not self.crews and self._launcher_crew:
            return self._launcher_crew
        return max(self.crews, key=lambda crew: (crew.hello.incarnation, crew.hello.started))

    @property
    def history(self) -> History:
        """Of the newest crew; empty while nobody has trained."""
        return self.newest.history if self.crews else History()

    def events(self, crew: Crew) -> list[tuple[int, Event]]:
        """The events of a crew and of the launcher as (rank, event), in order of time."""
        all_events = [*crew.events, *((LAUNCHER_RANK, event) for event in self.launcher_events)]
        return sorted(all_events, key=lambda item: (item[1].time, item[0]))

    def statuses(self) -> dict[str, Status]:
        """Each kind once: what its busiest instance says, or why it has none."""
        found: dict[str, Status] = {}
        for kind, status in self._instances():
            if kind not in found or _rank_of(status) < _rank_of(found[kind]):
                found[kind] = status
        for cls in self._classes:
            reads = " or ".join(f"`{name}`" for name in cls.reads[:2])
            found.setdefault(cls.kind, Status("not_checked", f"no {reads} was recorded"))
        return dict(sorted(found.items()))

    def _instances(self) -> Iterator[tuple[str, Status]]:
        for crew in self.crews:
            yield from crew.statuses()
        yield from self._records.statuses()

    def _launcher(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if isinstance(record, Event):
            self.launcher_events.append(record)
        self._launcher_crew = self._launcher_crew or Crew(
            msgspec.structs.replace(hello, world_size=0), (), self._records
        )
        return self._keep(self.newest, self._records.observe(hello, record))

    def _enlist(self, hello: Hello) -> Crew:
        """The crew of a new process: the one of its incarnation that lacks its rank and began at about its time.

        A rank that appears again in the same incarnation (two trainings in one command) starts another crew;
        a process that serves requests keeps no step with others, so each is a crew of its own.
        """
        if hello.role != "serve":
            open_crews = [crew for crew in self.crews if self._lacks(crew, hello)]
            if open_crews:
                return min(open_crews, key=lambda crew: abs(crew.hello.started - hello.started))
        crew = Crew(hello, self._classes, self._records, self.allowance)
        self.crews.append(crew)
        return crew

    def _lacks(self, crew: Crew, hello: Hello) -> bool:
        same = (crew.hello.incarnation, crew.hello.world_size, crew.hello.role)
        taken = {rank for (rank, _, _), other in self._crew_of.items() if other is crew}
        return same == (hello.incarnation, hello.world_size, hello.role) and hello.rank not in taken

    def _keep(self, crew: Crew, findings: list[Finding]) -> list[Finding]:
        self.noted.extend(Noted(crew, finding) for finding in findings)
        return findings


def _key(hello: Hello) -> Key:
    return hello.rank, hello.pid, hello.host


def _rank_of(status: Status) -> int:
    return ("alarm", "ok", "warming_up", "not_checked").index(status.state)
