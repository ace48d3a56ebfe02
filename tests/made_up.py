"""Detectors, causes and spools made up for tests of the engine: simple enough to know what must come out."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.signals.records import AnyRecord, Event, Hello
from torchvitals.signals.spool import SpoolWriter


class HighLoss:
    """Fires once per rank when its loss is not at most 10."""

    kind: ClassVar[str] = "explosion"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss", "learning_rate")

    def __init__(self) -> None:
        self.fired: set[int] = set()
        self.steps: list[int] = []
        self.present: list[list[bool]] = []

    def update(self, reading: Reading) -> list[Finding]:
        self.steps.append(reading.step)
        loss, present = reading.values["loss"], reading.present["loss"]
        self.present.append(present.tolist())
        high = np.flatnonzero(present & ~(loss <= 10))
        new = [int(rank) for rank in high if int(rank) not in self.fired]
        self.fired.update(new)
        return [finding("explosion", reading.step, subject=rank, value=float(loss[rank])) for rank in new]

    def status(self) -> Status:
        return Status("ok" if self.steps else "not_checked", "" if self.steps else "no loss was seen")


class ZeroNorm:
    """Fires once per parameter whose gradient norm is 0."""

    kind: ClassVar[str] = "vanishing"
    axis: ClassVar[DetectorAxis] = "parameter"
    reads: ClassVar[tuple[str, ...]] = ("parameter_gradient_norm",)

    def __init__(self) -> None:
        self.fired: set[int] = set()

    def update(self, reading: Reading) -> list[Finding]:
        norms, present = reading.values["parameter_gradient_norm"], reading.present["parameter_gradient_norm"]
        new = [int(i) for i in np.flatnonzero(present & (norms == 0)) if int(i) not in self.fired]
        self.fired.update(new)
        return [finding("vanishing", reading.step, subject=index) for index in new]

    def status(self) -> Status:
        return Status("ok")


class Unequal:
    """Fires when ranks' digests differ."""

    kind: ClassVar[str] = "desync"
    axis: ClassVar[DetectorAxis] = "replica"
    reads: ClassVar[tuple[str, ...]] = ("parameter_digest",)

    def __init__(self) -> None:
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        held = reading.present["parameter_digest"]
        rows = reading.values["parameter_digest"][held.reshape(len(held), -1).all(axis=1)]
        if self.fired or not (rows != rows[0]).any():
            return []
        self.fired = True
        return [finding("desync", reading.step, subject=int(np.flatnonzero((rows != rows[0]).any(axis=0))[0]))]

    def status(self) -> Status:
        return Status("ok")


class Broken:
    """Raises on its third step."""

    kind: ClassVar[str] = "plateau"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(self) -> None:
        self.count = 0

    def update(self, reading: Reading) -> list[Finding]:
        del reading
        self.count += 1
        if self.count == 3:
            raise ZeroDivisionError("on purpose")
        return []

    def status(self) -> Status:
        return Status("ok")


class Died:
    """Fires for exceptions, and for every process that ended without a word."""

    kind: ClassVar[str] = "crash"
    records: ClassVar[tuple[type, ...]] = (Event,)

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        if isinstance(record, Event) and record.kind == "exception":
            return [finding("crash", record.step, rank=hello.rank, evidence={"type": record.details["type"]})]
        return []

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        return [finding("crash", 0, rank=hello.rank, evidence={"signal": 9}) for hello in gone]

    def status(self) -> Status:
        return Status("ok")


def finding(kind: str, step: int, first: int | None = None, **fields: Any) -> Finding:
    """A finding of which only a few things matter."""
    told = {"severity": "error", "value": 1.0, "threshold": 0.5, **fields}
    return Finding(kind=kind, first_step=step if first is None else first, step=step, **told)


def writer(directory: Path, rank: int = 0, world: int = 1, *, run: str = "made-up", **hello: Any) -> SpoolWriter:
    """A spool writer of one rank with a fixed process number and clock."""
    pid = hello.pop("pid", 4_000_000 + rank)  # above every kernel's default limit: no such process lives
    hello = {"host": "elsewhere", **hello}
    told = Hello(run=run, name="made", rank=rank, world_size=world, pid=pid, **hello)
    return SpoolWriter(directory, told, clock=lambda: 1000.0, monotonic=lambda: 0.0)


def train(spool: SpoolWriter, losses: Sequence[float], *, start: float = 1000.0, **values: float) -> None:
    """One step per loss, a second each, then a goodbye."""
    for step, loss in enumerate(losses):
        spool.step(step, start + step, {"loss": loss, **values})
    goodbye(spool, len(losses), start)


def goodbye(spool: SpoolWriter, step: int, start: float = 1000.0, details: Mapping[str, Any] | None = None) -> None:
    """The last word of a process."""
    spool.write(Event(start + step, step, "exit", {"code": 0, **(details or {})}))
    spool.close()
