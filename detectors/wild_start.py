"""Wild start: before any update the loss is many times that of a guess, or the answers are out of all proportion."""

from collections.abc import Sequence
from typing import ClassVar

from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Event, Hello

_FIGURES = ("loss", "chance", "answers", "targets", "inputs")


class WildStart:
    """A cross-entropy over C classes that begins beyond ``times`` ln C: outputs of hundreds where ones are due.

    The hooks work it out from the first graph of the loss, so that no weight or scale of the loss matters. A net that
    is fine-tuned and wrong about everything begins at two or three times ln C.

    Of a squared error there are no classes to guess among: there the answers must be ``beyond`` times as large as the
    targets, which may be small for no fault of the net's, and ``grown`` times as large as the inputs, too.

    >>> detector, hello = WildStart(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> for start in (3.1, 80.0):
    ...     event = Event(9.5, 0, "first_loss", {"classes": 10, "chance": 2.3026, "loss": start})
    ...     for finding in detector.observe(hello, event):
    ...         print(finding.kind, finding.step, finding.value)
    explosion 0 80.0
    >>> answers = {"answers": 0.3, "targets": 1e-6, "inputs": 0.0}
    >>> WildStart().observe(hello, Event(9.5, 0, "first_answers", answers))
    []
    """

    kind: ClassVar[str] = "explosion"
    records: ClassVar[tuple[type, ...]] = (Event,)

    def __init__(self, *, times: float = 10.0, beyond: float = 1e4, grown: float = 1e3) -> None:
        self.times, self.beyond, self.grown = times, beyond, grown
        self._told = False
        self._seen = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take one event."""
        if not isinstance(record, Event) or record.kind not in ("first_loss", "first_answers"):
            return []
        self._seen = True
        known = {name: float(record.details.get(name, 0.0)) for name in _FIGURES}
        if record.kind == "first_loss":
            value, limit = known["loss"], self.times * known["chance"]
        else:
            inputs = max(known["inputs"], 1.0)  # of indices nothing is known, and they are looked up in numbers near 1
            value, limit = known["answers"], max(self.beyond * known["targets"], self.grown * inputs)
        if self._told or not limit > 0 or not value > limit:
            return []
        self._told = True
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=record.step,
                step=record.step,
                value=value,
                threshold=limit,
                rank=hello.rank,
                evidence={"signal": record.kind, **record.details},
            )
        ]

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        why = "the loss is no cross-entropy over classes, and no squared error"
        return Status("ok") if self._seen else Status("not_checked", why)
