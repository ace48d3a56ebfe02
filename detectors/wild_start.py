"""Wild start: before any update the loss is many times that of a guess, or the answers are out of all proportion."""

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

import msgspec
import numpy as np
from torchvitals.detectors.detector import Finding, Status
from torchvitals.detectors.unlearnt import SAME
from torchvitals.signals.records import AnyRecord, Event, Hello, Step

_FIGURES = ("loss", "chance", "answers", "targets", "inputs")
_RECENT = 8
"""Losses of which the median is taken."""


class WildStart:
    """A cross-entropy over C classes that begins beyond ``times`` ln C: outputs of hundreds where ones are due.

    The hooks work it out from the first graph of the loss, so that no weight or scale of the loss matters. A net that
    is fine-tuned and wrong about everything begins at two or three times ln C. A language model whose embeddings are
    its head, too, and were drawn as embeddings are, begins at 10 to 40 times, and no harm is done: it is near ln C
    after 40 to 170 steps. So a loss that comes down is waited for.

    Of a squared error there are no classes to guess among: there the answers must be ``beyond`` times as large as the
    targets, which may be small for no fault of the net's, and ``grown`` times as large as the inputs, too.

    Args:
        times, beyond, grown: see above.
        mended: times ln C, below which nothing is left of the start.
        far: times ln C, beyond which nothing is waited for: nets of ReLU whose weights were drawn with a
            standard deviation of 0.5 and more began at 31 to 13,000 times, and SGD brought some to silence at once.
        patience: steps in which the loss must have come down to ``falling`` of the first one; the nets above took 3 to
            18, those of ReLU under Adam 28 to 198.
        most: steps until it must be mended.

    >>> detector, hello = WildStart(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> for start in (3.1, 80.0):
    ...     event = Event(9.5, 0, "first_loss", {"classes": 10, "chance": 2.3026, "loss": start})
    ...     found = detector.observe(hello, event)
    >>> for step in range(100):
    ...     for finding in detector.observe(hello, Step(step, 10.0, {"loss": 80.0})):
    ...         print(finding.kind, finding.first_step, finding.step, finding.value)
    explosion 0 64 80.0
    >>> answers = {"answers": 0.3, "targets": 1e-6, "inputs": 0.0}
    >>> WildStart().observe(hello, Event(9.5, 0, "first_answers", answers))
    []
    """

    kind: ClassVar[str] = "explosion"
    records: ClassVar[tuple[type, ...]] = (Event, Step)

    def __init__(
        self,
        *,
        times: float = 10.0,
        beyond: float = 1e4,
        grown: float = 1e3,
        mended: float = 2.0,
        far: float = 50.0,
        patience: int = 64,
        falling: float = 0.5,
        most: int = 256,
    ) -> None:
        self.times, self.beyond, self.grown = times, beyond, grown
        self.mended, self.far = mended, far
        self.patience, self.falling, self.most = patience, falling, most
        self._told = False
        self._seen = False
        self._held: dict[int, _Course] = {}
        """Rank → what it began with and how it went on, while that is not known to be no harm."""

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take what the first loss was, or the loss of a step."""
        if isinstance(record, Step):
            return self._follow(hello.rank, record) if self._held else []
        if not isinstance(record, Event) or record.kind not in ("first_loss", "first_answers"):
            return []
        self._seen = True
        known = {name: float(record.details.get(name, 0.0)) for name in _FIGURES}
        if record.kind == "first_loss":
            value, limit = known["loss"], self.times * known["chance"]
        else:
            inputs = max(known["inputs"], 1.0)  # of indices nothing is known, and they are looked up in numbers near 1
            value, limit = known["answers"], max(self.beyond * known["targets"], self.grown * inputs)
        if self._told or self._held or not limit > 0 or not value > limit:
            return []
        finding = Finding(
            kind=self.kind,
            severity="error",
            first_step=record.step,
            step=record.step,
            value=value,
            threshold=limit,
            rank=hello.rank,
            evidence={"signal": record.kind, **record.details},
        )
        if record.kind == "first_answers" or value > self.far * known["chance"]:
            return self._tell(finding, record.step)
        self._held[hello.rank] = _Course(finding, known["chance"])
        return []

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """A run that ended before its loss was an ordinary one."""
        del gone
        return [told for course in list(self._held.values()) for told in self._tell(course.finding, course.step)]

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        why = "the loss is no cross-entropy over classes, and no squared error"
        return Status("ok") if self._seen else Status("not_checked", why)

    def _follow(self, rank: int, record: Step) -> list[Finding]:
        course = self._held.get(rank)
        loss = record.values.get("loss") if course is not None and record.counts else None
        if course is None or loss is None or record.optimizer != course.of(record.optimizer):
            return []
        course.step = record.step
        if not course.losses and not abs(loss - course.finding.value) <= SAME * course.finding.value:
            return self._tell(course.finding, record.step)  # a sum of several, or a scaled one: it can't be followed
        course.losses.append(float(loss))
        median, lasted = float(np.median(course.losses)), record.step - course.finding.first_step
        if len(course.losses) == _RECENT and median < self.mended * course.chance:
            del self._held[rank]
            return []
        falls = median < self.falling * course.finding.value
        wild = not np.isfinite(loss) or lasted >= (self.most if falls else self.patience)
        return self._tell(course.finding, record.step) if wild else []

    def _tell(self, finding: Finding, step: int) -> list[Finding]:
        self._held.clear()
        if self._told:
            return []
        self._told = True
        return [msgspec.structs.replace(finding, step=step)]


class _Course:
    """The newest losses of one rank after its first."""

    def __init__(self, finding: Finding, chance: float) -> None:
        self.finding, self.chance = finding, chance
        self.losses: deque[float] = deque(maxlen=_RECENT)
        self.step = finding.step
        self._optimizer: int | None = None

    def of(self, optimizer: int) -> int:
        """The optimizer whose loss is followed: the first that stepped."""
        self._optimizer = optimizer if self._optimizer is None else self._optimizer
        return self._optimizer
