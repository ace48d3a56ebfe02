"""A step that was run again on the same inputs gave other bits."""

from collections.abc import Sequence
from typing import ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Event, Hello


class Nondeterminism:
    """Reads what the hooks saw when they ran a step again (``torchvitals run --exact``); the first one counts.

    Bits are compared, not values: no threshold could tell a race from rounding, and none is needed. Two runs that
    part are compared by ``torchvitals compare``, which speaks of the same kind.

    >>> detector = Nondeterminism()
    >>> told = {"operation": "aten.index_put.default", "line": "net.py:14", "differs": "result", "at": 8, "runs": 2}
    >>> for finding in detector.observe(Hello(rank=0), Event(0.0, 8, "repeat", told)):
    ...     print(finding.first_step, finding.name, finding.evidence["operation"])
    8 net.py:14 aten.index_put.default
    """

    kind: ClassVar[str] = "nondeterminism"
    records: ClassVar[tuple[type, ...]] = (Event,)

    def __init__(self) -> None:
        self.looks = 0
        self.why = ""
        self.found = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if not isinstance(record, Event) or record.kind != "repeat":
            return []
        told = record.details
        self.looks += int(told.get("runs") or 0) > 1
        self.why = str(told.get("why") or self.why)
        if not told.get("operation") or self.found:
            return []
        self.found = True
        step = int(told.get("at", record.step))
        return [
            Finding(
                kind=self.kind,
                severity="warning",
                first_step=step,
                step=step,
                value=1.0,
                threshold=0.0,
                name=str(told.get("line") or told["operation"]),
                rank=hello.rank,
                evidence=dict(told),
            )
        ]

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        del gone
        return []

    def status(self) -> Status:
        if self.found:
            return Status("alarm")
        if self.looks:
            return Status("ok")
        return Status("not_checked", self.why or "no step was run twice; torchvitals run --exact does that")
