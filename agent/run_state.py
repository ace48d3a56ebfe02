"""One run under observation: engine and diagnosis together, live or offline."""

import heapq
from collections.abc import Iterable, Iterator, Sequence

from torchvitals.agent.diagnosis import Diagnosis
from torchvitals.agent.engine import Engine, NotChecked
from torchvitals.agent.incident import Incident
from torchvitals.detectors.allowance import Allowance
from torchvitals.detectors.detector import Status
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Hello


class RunState:
    """Takes a run's entries and keeps its incidents.

    The incidents are a function of the records, given that each process's entries come in order and
    processes are merged by time as :func:`merged` does; the same live and offline.
    """

    def __init__(
        self,
        run_id: str,
        engine: Engine | None = None,
        *,
        allowance: Allowance | None = None,
        insist: bool = False,
    ) -> None:
        self.engine = engine or Engine(run_id, allowance=allowance, insist=insist)
        self.diagnosis = Diagnosis(self.engine)
        self.concluded = False

    @property
    def incidents(self) -> list[Incident]:
        """All incidents so far, most severe first."""
        return self.diagnosis.incidents

    @property
    def absorbed(self) -> dict[str, str]:
        """Ids of incidents that were found to be part of another one, and of which."""
        return self.diagnosis.absorbed

    def feed(self, entries: Iterable[Entry]) -> list[Incident]:
        """Take entries; return the incidents that are new or have changed, each once, as they stand now."""
        changed: dict[str, Incident] = {}
        for entry in entries:
            self.engine.feed(entry)
            self._note(changed, self.diagnosis.update())
        return list(changed.values())

    def ended(self, hello: Hello) -> list[Incident]:
        """A process is known to be dead: the ranks beside it need not be held up for it."""
        changed: dict[str, Incident] = {}
        self.engine.ended(hello)
        self._note(changed, self.diagnosis.update())
        return list(changed.values())

    def finish(self, gone: Sequence[Hello] = ()) -> list[Incident]:
        """No record will follow; ``gone`` are the processes that ended without saying so."""
        changed: dict[str, Incident] = {}
        self.engine.finish(gone)
        self.concluded = True
        self._note(changed, self.diagnosis.update())
        self._note(changed, self.diagnosis.conclude())
        return list(changed.values())

    def statuses(self) -> dict[str, Status]:
        """Each detector kind once, and where it stands; what was found was looked for."""
        found = {noted.finding.kind for noted in self.engine.noted}
        return {kind: Status("alarm") if kind in found else s for kind, s in self.engine.statuses().items()}

    def checked(self) -> list[str]:
        """The kinds that were looked for."""
        return [kind for kind, status in self.statuses().items() if status.state in ("ok", "alarm")]

    def not_checked(self) -> list[NotChecked]:
        """What could not be looked at, and why; each once."""
        found = [
            NotChecked(kind, status.reason or "too few steps so far")
            for kind, status in self.statuses().items()
            if status.state in ("warming_up", "not_checked")
        ]
        for crew in self.engine.crews:
            for _, event in crew.events:
                if event.kind == "not_checked":
                    found.append(NotChecked(str(event.details.get("what", "")), str(event.details.get("why", ""))))
                elif event.kind == "fuse":
                    why = f"the probe failed inside and was removed: {event.details.get('error', '')}"
                    found.append(NotChecked(str(event.details.get("probe", "a probe")), why))
        return list(dict.fromkeys([*found, *self.diagnosis.problems]))

    def _note(self, changed: dict[str, Incident], incidents: Iterable[Incident]) -> None:
        for incident in incidents:
            changed[incident.id] = incident
        for gone in self.absorbed:
            changed.pop(gone, None)


def merged(streams: Iterable[Iterable[Entry]]) -> Iterator[Entry]:
    """Interleave the entries of several processes by time, each kept in its own order.

    Records without a time (axes) and those whose clock went back take the latest time seen before them.
    """
    keyed = (_timed(number, stream) for number, stream in enumerate(streams))
    for _, _, _, entry in heapq.merge(*keyed):
        yield entry


def _timed(number: int, stream: Iterable[Entry]) -> Iterator[tuple[float, int, int, Entry]]:
    latest = 0.0
    for place, entry in enumerate(stream):
        own = entry.record.started if isinstance(entry.record, Hello) else getattr(entry.record, "time", latest)
        latest = max(latest, own)
        yield latest, number, place, entry
