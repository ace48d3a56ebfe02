"""The newest values and the running counts of one run, for ``/metrics`` and the list of runs.

Counts are made from the records, so they are the same after a restart of the agent, which reads them again.
Counts of a job are those of its lowest rank: adding up ranks that do the same step would count it often.
"""

import math
from bisect import bisect_left
from collections import deque

import msgspec
import numpy as np
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import LAUNCHER_RANK, Event, Profile, Requests, Step, unpack_floats

STEP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
REQUEST_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ITEM_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
PHASES = ("data", "forward", "backward", "optimizer")
PROFILES = (
    "parameter_update_norm",
    "parameter_weight_norm",
    "parameter_silent_rows",
    "parameter_zero_rows",
)
"""The profiles of which the newest is kept."""
NONFINITE_SIGNALS = {"loss": "loss", "gradient_norm": "gradient"}
RATE_STEPS = 50
"""Steps per second are measured over this many steps."""


class Histogram(msgspec.Struct):
    """Counts per bucket (not cumulative, the last one is ``+Inf``) and the sum of the finite values."""

    bounds: tuple[float, ...]
    counts: list[int] = []
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count one value; NaN lies in no bucket but the last."""
        if not self.counts:
            self.counts = [0] * (len(self.bounds) + 1)
        finite = math.isfinite(value)
        self.counts[bisect_left(self.bounds, value) if finite else -1] += 1
        self.total += value if finite else 0.0

    def plus(self, other: "Histogram") -> "Histogram":
        """The sum of two with the same bounds."""
        counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        return Histogram(self.bounds, counts, self.total + other.total)


class Vitals(msgspec.Struct, kw_only=True):
    """What is known of a run at this moment. Bounded by ranks and layers, never by steps."""

    run: str
    name: str = ""
    role: str = "train"
    state: str = "running"
    world_size: int = 1
    ended: float | None = None
    latest: dict[int, dict[str, float]] = {}
    """Rank → signal → newest value of optimizer 0."""
    last_seen: dict[int, float] = {}
    alive: dict[int, bool] = {}
    collectives: dict[int, int] = {}
    steps: int = 0
    trains: bool = False
    """Whether steps are steps; the requests of a service are counted as such."""
    skipped: int = 0
    phases: dict[str, float] = {}
    durations: Histogram = msgspec.field(default_factory=lambda: Histogram(STEP_BUCKETS))
    nonfinite: dict[tuple[str, str], int] = {}
    profiles: dict[str, tuple[list[str], list[float]]] = {}
    """Signal → entries and newest values of the lowest rank."""
    requests: dict[tuple[str, str], Histogram] = {}
    """(model, outcome) → latency."""
    items: dict[str, Histogram] = {}
    findings: dict[tuple[str, str], int] = {}
    """(kind, severity) → symptoms in the run's incidents."""
    torch: str = ""
    recent: deque[float] = msgspec.field(default_factory=lambda: deque(maxlen=RATE_STEPS))

    @property
    def ranks(self) -> list[int]:
        """The ranks that have written, in order."""
        return sorted(self.last_seen)

    @property
    def steps_per_second(self) -> float | None:
        """Over the newest steps; ``None`` before there are two."""
        span = self.recent[-1] - self.recent[0] if len(self.recent) > 1 else 0.0
        return (len(self.recent) - 1) / span if span > 0 else None

    @property
    def loss(self) -> float | None:
        """The newest loss of the lowest rank that sends one."""
        return next((values["loss"] for _, values in sorted(self.latest.items()) if "loss" in values), None)

    def add(self, entry: Entry) -> None:
        """Take one record."""
        hello, record = entry.hello, entry.record
        if hello.rank == LAUNCHER_RANK:
            return
        self.last_seen[hello.rank] = max(
            self.last_seen.get(hello.rank, hello.started), float(getattr(record, "time", 0.0))
        )
        self.torch = hello.torch or self.torch
        if isinstance(record, Step):
            self.trains = self.trains or (record.counts and hello.role != "serve")
            self._add_step(hello.rank, record)
        elif isinstance(record, Requests):
            self._add_requests(record)
        elif isinstance(record, Profile) and hello.rank == self.ranks[0] and entry.axis:
            kept = {name: data for name, data in record.values.items() if name in PROFILES}
            for name, data in kept.items():
                self.profiles[name] = (entry.axis.entries, unpack_floats(data).tolist())
        elif isinstance(record, Event) and record.kind == "detached":
            self.latest.pop(hello.rank, None)

    def copy(self) -> "Vitals":
        """A snapshot that no later record changes."""
        decoded: Vitals = msgspec.structs.replace(
            self,
            latest={rank: dict(values) for rank, values in self.latest.items()},
            last_seen=dict(self.last_seen),
            alive=dict(self.alive),
            collectives=dict(self.collectives),
            phases=dict(self.phases),
            durations=_copy(self.durations),
            nonfinite=dict(self.nonfinite),
            profiles=dict(self.profiles),
            requests={key: _copy(histogram) for key, histogram in self.requests.items()},
            findings=dict(self.findings),
            items={key: _copy(histogram) for key, histogram in self.items.items()},
            recent=deque(self.recent, maxlen=RATE_STEPS),
        )
        return decoded

    def _add_step(self, rank: int, step: Step) -> None:
        if not step.counts:
            return
        values = {str(name): float(value) for name, value in step.values.items()}
        self.latest.setdefault(rank, {}).update(values)
        self.collectives[rank] = self.collectives.get(rank, 0) + _whole(values.get("collectives"))
        self.steps = max(self.steps, step.step + 1)
        if rank != self.ranks[0]:
            return
        self.recent.append(step.time)
        self.skipped += _whole(values.get("skipped_steps"))
        for phase in PHASES:
            seconds = values.get(f"{phase}_seconds", 0.0)
            self.phases[phase] = self.phases.get(phase, 0.0) + (seconds if seconds > 0 else 0.0)
        if "step_seconds" in values:
            self.durations.add(values["step_seconds"])
        for signal, where in NONFINITE_SIGNALS.items():
            if not math.isfinite(values.get(signal, 0.0)):
                key = (where, "nan" if math.isnan(values[signal]) else "inf")
                self.nonfinite[key] = self.nonfinite.get(key, 0) + 1

    def _add_requests(self, requests: Requests) -> None:
        failed = set(requests.errors)
        for offset, latency in enumerate(unpack_floats(requests.latencies).tolist()):
            key = (requests.model, "error" if offset in failed else "ok")
            self.requests.setdefault(key, Histogram(REQUEST_BUCKETS)).add(latency)
            if not self.trains:
                self.steps = max(self.steps, requests.first + offset + 1)
        for items in np.frombuffer(requests.items, dtype="<i4").tolist():
            self.items.setdefault(requests.model, Histogram(ITEM_BUCKETS)).add(items)


def _whole(value: float | None) -> int:
    return int(value) if value is not None and math.isfinite(value) else 0


def _copy(histogram: Histogram) -> Histogram:
    return Histogram(histogram.bounds, list(histogram.counts), histogram.total)
