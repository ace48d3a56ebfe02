"""A service answers NaN, which is no answer to anything."""

from collections.abc import Sequence
from typing import ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Event, Hello


class UndefinedAnswers:
    """The first request that was answered with NaN; once, and nothing to set: no healthy answer holds one.

    Scores of -inf are choices that are masked, and an infinite distance means something; both are no finding. Requests
    are looked at in blocks, and of one with many rows some are.

    >>> detector, hello = UndefinedAnswers(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> event = Event(9.5, 0, "undefined_answer", {"request": 1520, "rows": 1, "output": "output", "given": ""})
    >>> for finding in detector.observe(hello, event):
    ...     print(finding.kind, finding.first_step, finding.name)
    nonfinite 1520 output
    """

    kind: ClassVar[str] = "nonfinite"
    records: ClassVar[tuple[type, ...]] = (Event,)

    def __init__(self) -> None:
        self._told = False
        self._seen = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take one event."""
        self._seen = True
        if self._told or not isinstance(record, Event) or record.kind != "undefined_answer":
            return []
        self._told = True
        request = int(record.details["request"])
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=request,
                step=request,
                value=float(record.details.get("rows", 1)),
                threshold=0.0,
                name=str(record.details.get("given") or record.details.get("output", "")),
                rank=hello.rank,
                evidence={"signal": "answers", **record.details},
            )
        ]

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        return Status("ok") if self._seen else Status("not_checked", "no event was seen")
