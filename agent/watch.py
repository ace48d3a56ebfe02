"""Detectors at work: one instance per subject group, each behind a guard, and what became of them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from torchvitals.agent.guard import guarded
from torchvitals.detectors.allowance import Allowance, Calibrated
from torchvitals.detectors.detector import Concluding, Detector, Finding, Reading, RecordDetector, Status
from torchvitals.signals.records import AnyRecord, Hello

T = TypeVar("T")


class Retired(NamedTuple):
    """A detector that failed inside."""

    kind: str
    why: str


class Watch:
    """All detectors of one axis over one stream of readings.

    Args:
        classes: the detectors of this axis.
        rank: the rank whose stream this is; ``None`` when the axis itself runs over ranks.
        optimizer: index of the optimizer whose steps count here.
        allowance: how many false alarms they may raise together, in equal shares.
        entries: names of the axis entries, for ``Finding.name``.

    """

    def __init__(
        self,
        classes: Iterable[type[Detector]],
        *,
        rank: int | None = None,
        optimizer: int = 0,
        entries: Sequence[str] = (),
        allowance: Allowance | None = None,
    ) -> None:
        self.detectors: list[Detector] = [made for made in (_made(cls) for cls in classes) if made]
        self.retired: list[Retired] = []
        self._shared: dict[str, Any] = {}
        """What they keep together."""
        self.entries = list(entries)
        self._rank = rank
        self._optimizer = optimizer
        calibrated = [detector for detector in self.detectors if isinstance(detector, Calibrated)]
        for detector in calibrated:
            detector.allow(Allowance((allowance or Allowance()).per_month, shares=len(calibrated)))

    def update(self, reading: Reading) -> list[Finding]:
        """The findings of all detectors, in the order of their list; a detector that raises is retired."""
        found: list[Finding] = []
        reading.shared = self._shared if reading.masked else None
        for detector in list(self.detectors):
            findings, problem = guarded(detector.kind, lambda: detector.update(reading))  # noqa: B023
            if findings is None:
                self.detectors.remove(detector)
                self.retired.append(Retired(detector.kind, problem))
            else:
                found.extend(self._placed(detector, finding) for finding in findings)
        return found

    def conclude(self) -> list[Finding]:
        """No step will follow: what the detectors had held back in the hope of more."""
        found: list[Finding] = []
        for detector in [each for each in self.detectors if isinstance(each, Concluding)]:
            findings, problem = guarded(detector.kind, detector.conclude)
            if problem:
                self.retired.append(Retired(detector.kind, problem))
            found.extend(self._placed(detector, finding) for finding in findings or ())
        return found

    def extends(self, entries: Sequence[str]) -> bool:
        """Whether ``entries`` are the known ones, or these and more behind: subjects may grow, not change."""
        return list(entries[: len(self.entries)]) == self.entries

    def statuses(self) -> list[tuple[str, Status]]:
        """Where each detector stands, the retired ones included."""
        alive = [(detector.kind, _status(detector)) for detector in self.detectors]
        return alive + [(kind, Status("not_checked", why)) for kind, why in self.retired]

    def _placed(self, detector: Detector, finding: Finding) -> Finding:
        rank, name = finding.rank, finding.name
        if detector.axis == "rank" and rank is None:
            rank = finding.subject
        elif rank is None:
            rank = self._rank
        if not name and detector.axis != "rank" and finding.subject is not None and finding.subject < len(self.entries):
            name = self.entries[finding.subject]
        return msgspec.structs.replace(finding, rank=rank, name=name, optimizer=self._optimizer)


class RecordWatch:
    """The detectors of records, one instance each per run."""

    def __init__(self, classes: Iterable[type[RecordDetector]]) -> None:
        self.detectors: list[RecordDetector] = [made for made in (_made(cls) for cls in classes) if made]
        self.retired: list[Retired] = []

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Hand ``record`` to the detectors that ask for its type."""
        found: list[Finding] = []
        for detector in [d for d in self.detectors if isinstance(record, d.records)]:
            findings, problem = guarded(detector.kind, lambda: detector.observe(hello, record))  # noqa: B023
            found.extend(findings if findings is not None else self._retire(detector, problem))
        return found

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Tell all that nothing will follow."""
        found: list[Finding] = []
        for detector in list(self.detectors):
            findings, problem = guarded(detector.kind, lambda: detector.finish(gone))  # noqa: B023
            found.extend(findings if findings is not None else self._retire(detector, problem))
        return found

    def statuses(self) -> list[tuple[str, Status]]:
        """Where each detector stands, the retired ones included."""
        alive = [(detector.kind, _status(detector)) for detector in self.detectors]
        return alive + [(kind, Status("not_checked", why)) for kind, why in self.retired]

    def _retire(self, detector: RecordDetector, problem: str) -> list[Finding]:
        self.detectors.remove(detector)
        self.retired.append(Retired(detector.kind, problem))
        return []


def _made(cls: type[T]) -> T | None:
    return guarded(getattr(cls, "kind", cls.__name__), cls)[0]


def _status(detector: Detector | RecordDetector) -> Status:
    status, problem = guarded(detector.kind, detector.status)
    return status or Status("not_checked", problem)
