"""Wild start: before any update the loss is many times that of a guess."""

from collections.abc import Sequence
from typing import ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Event, Hello


class WildStart:
    """A cross-entropy over C classes that begins beyond ``times`` ln C: outputs of hundreds where ones are due.

    The hooks work it out from the first graph of the loss, so that no weight or scale of the loss matters. A net that
    is fine-tuned and wrong about everything begins at two or three times ln C.

    >>> detector, hello = WildStart(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> for start in (3.1, 80.0):
    ...     event = Event(9.5, 0, "first_loss", {"classes": 10, "chance": 2.3026, "loss": start})
    ...     for finding in detector.observe(hello, event):
    ...         print(finding.kind, finding.step, finding.value)
    explosion 0 80.0
    """

    kind: ClassVar[str] = "explosion"
    records: ClassVar[tuple[type, ...]] = (Event,)

    def __init__(self, *, times: float = 10.0) -> None:
        self.times = times
        self._told = False
        self._seen = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take one event."""
        if not isinstance(record, Event) or record.kind != "first_loss":
            return []
        self._seen = True
        loss, chance = float(record.details.get("loss", 0.0)), float(record.details.get("chance", 0.0))
        if self._told or not chance > 0 or not loss > self.times * chance:
            return []
        self._told = True
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=record.step,
                step=record.step,
                value=loss,
                threshold=self.times * chance,
                rank=hello.rank,
                evidence={"signal": "first_loss", "classes": record.details.get("classes"), "chance": chance},
            )
        ]

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        return Status("ok") if self._seen else Status("not_checked", "the loss is no cross-entropy over classes")
