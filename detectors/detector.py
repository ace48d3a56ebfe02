"""What a detector is: the whole contract on one screen.

A detector is a pure function of what it has been given: no clock, no files, no randomness without a fixed
seed. The engine makes one instance per run (and optimizer), feeds it in step order and asks for its status.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray
from torchvitals.signals.records import AnyRecord, Hello

Severity = Literal["info", "warning", "error", "critical"]
DetectorAxis = Literal["rank", "parameter", "module", "feature", "replica"]
State = Literal["ok", "alarm", "warming_up", "not_checked"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One symptom. ``first_step`` is where it began, ``step`` where it was certain, counted from 0.

    ``subject`` is an index into the detector's axis; the engine adds ``name`` (the entry) and ``rank``.
    ``evidence`` holds plain numbers, strings and lists that a cause or a reader can use.
    """

    kind: str
    severity: Severity
    first_step: int
    step: int
    value: float
    threshold: float
    subject: int | None = None
    name: str = ""
    rank: int | None = None
    optimizer: int = 0
    evidence: dict[str, Any] = {}


class Status(msgspec.Struct, frozen=True):
    """Where a detector stands; never ``ok`` for what was not looked at."""

    state: State
    reason: str = ""


class Reading:
    """What one step says along one axis.

    ``values[name]`` has one entry per subject (axis ``replica``: one row per rank); ``present[name]`` is
    False where a subject sent nothing. NaN and Inf are values. A signal nobody sent is absent from both.
    ``masked`` promises that all signals have one entry for each of the same subjects and that the values of absent ones
    are NaN, so that detectors need not mask them again. All detectors share the arrays: none may write into them.
    ``memo`` is theirs together, too: what several make of a reading alike is made once. ``shared`` is what those of one
    job keep together from reading to reading, where whoever feeds them all hands it on; its readings are ``masked``.

    >>> reading = Reading.of(7, loss=[0.5, float("nan")])
    >>> reading.step, reading.present["loss"].tolist()
    (7, [True, True])
    """

    __slots__ = ("masked", "memo", "present", "shared", "step", "time", "values")

    def __init__(
        self,
        step: int,
        time: float,
        values: Mapping[str, NDArray[Any]],
        present: Mapping[str, NDArray[np.bool_]],
        *,
        masked: bool = False,
    ) -> None:
        self.step = step
        self.time = time
        self.values = values
        self.present = present
        self.masked = masked
        self.memo: dict[tuple[str, int], Any] = {}
        self.shared: dict[str, Any] | None = None

    @classmethod
    def of(cls, step: int, time: float = 0.0, **values: ArrayLike) -> "Reading":
        """A reading in which every subject is present; for tests and examples."""
        arrays = {name: np.atleast_1d(np.asarray(value, dtype=np.float64)) for name, value in values.items()}
        return cls(step, time, arrays, {name: np.ones(len(a), dtype=bool) for name, a in arrays.items()})


class Detector(Protocol):
    """Watches signals. ``reads`` are names of the catalogue, all along ``axis`` (``rank``: the scalars of
    every rank). The number of subjects may grow between updates, never shrink; steps never go back.
    """

    kind: ClassVar[str]
    axis: ClassVar[DetectorAxis]
    reads: ClassVar[tuple[str, ...]]

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step and return what has just become certain; each symptom of each subject once."""
        ...

    def status(self) -> Status: ...


@runtime_checkable
class Concluding(Detector, Protocol):
    """A detector that holds something back as long as later steps may explain it."""

    def conclude(self) -> list[Finding]:
        """No step will follow."""
        ...


class RecordDetector(Protocol):
    """Watches records that are no signals: events, beats. One instance per run."""

    kind: ClassVar[str]
    records: ClassVar[tuple[type, ...]]

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take one record and return what has just become certain."""
        ...

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """No record will follow; ``gone`` are the processes that ended without saying so."""
        ...

    def status(self) -> Status: ...
