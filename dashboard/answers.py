"""What the agent's HTTP API answers, typed. Unknown fields are ignored and absent ones filled, so that a
dashboard and an agent of neighbouring versions understand each other. Times are seconds since the epoch.
"""

from typing import Any

import msgspec

Number = float | None
"""The API writes non-finite numbers as strings; the client makes them numbers again."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all answers."""


class Run(Answer, frozen=True, kw_only=True):
    """One line of the list of runs. ``incidents`` counts the unresolved ones by severity."""

    run: str
    name: str = ""
    state: str = "lost"
    role: str = "train"
    ranks: int = 0
    steps: int = 0
    started: float = 0.0
    last_seen: float = 0.0
    host: str = ""
    command: str = ""
    loss: Number = None
    steps_per_second: Number = None
    incidents: dict[str, int] = {}
    worst: str | None = None

    @property
    def live(self) -> bool:
        """Whether more is to come."""
        return self.state == "running"

    @property
    def counts(self) -> str:
        """What ``steps`` counts."""
        return "requests" if self.role == "serve" else "steps"


class Process(Answer, frozen=True, kw_only=True):
    """One process of a run."""

    rank: int = 0
    pid: int = 0
    host: str = ""
    last_step: int | None = None
    last_seen: Number = None
    state: str = ""
    dropped: int = 0
    corrupt: int = 0


class SignalInfo(Answer, frozen=True, kw_only=True):
    """A scalar signal that a run sends."""

    name: str
    unit: str = "1"
    tells: str = ""
    ranks: list[int] = []


class NotChecked(Answer, frozen=True, kw_only=True):
    """Something that could not be looked at."""

    what: str = ""
    why: str = ""


class EventInfo(Answer, frozen=True, kw_only=True):
    """Something that happened once."""

    time: float = 0.0
    step: int | None = None
    rank: int | None = None
    kind: str = ""
    details: dict[str, Any] = {}


class RunDetails(Run, frozen=True, kw_only=True):
    """Everything about one run but its measurements."""

    facts: dict[str, Any] = {}
    processes: list[Process] = []
    signals: list[SignalInfo] = []
    profiles: list[str] = []
    checked: list[Any] = []
    not_checked: list[NotChecked] = []
    events: list[EventInfo] = []

    @property
    def sends(self) -> set[str]:
        """The names of the scalar signals it sends."""
        return {signal.name for signal in self.signals}


class Series(Answer, frozen=True, kw_only=True):
    """One signal of one rank, down-sampled: a bucket's last step and time, its extremes, its last value."""

    signal: str
    rank: int = 0
    optimizer: int = 0
    step: list[int] = []
    time: list[Number] = []
    min: list[Number] = []
    max: list[Number] = []
    last: list[Number] = []
    nonfinite: list[int] = []


class Profiles(Answer, frozen=True, kw_only=True):
    """Sampled steps of one signal along its axis: ``values[n]`` has one number per entry at ``step[n]``."""

    signal: str = ""
    rank: int = 0
    entries: list[str] = []
    step: list[int] = []
    values: list[list[Number]] = []


class Cause(Answer, frozen=True, kw_only=True):
    """A possible cause and the sentences for and against it."""

    cause: str
    confidence: float = 0.0
    evidence: list[str] = []
    against: list[str] = []


class FindingInfo(Answer, frozen=True, kw_only=True):
    """One symptom of an incident."""

    kind: str = ""
    severity: str = ""
    first_step: int | None = None
    step: int | None = None
    value: Number = None
    threshold: Number = None
    name: str = ""
    rank: int | None = None


class Incident(Answer, frozen=True, kw_only=True):
    """What, where and why, and what has become of it."""

    id: str
    run: str = ""
    name: str = ""
    kind: str = ""
    severity: str = "info"
    status: str = "open"
    first_step: int | None = None
    detected_step: int | None = None
    rank: int | None = None
    where: str = ""
    cause: str = "unknown"
    confidence: float = 0.0
    causes: list[Cause] = []
    title: str = ""
    explanation: str = ""
    remedy: str = ""
    findings: list[FindingInfo] = []
    links: dict[str, Any] = {}
    opened_at: Number = None
    updated_at: Number = None
    resolved_at: Number = None
    acknowledged_by: str | None = None
    silenced_until: Number = None

    @property
    def unresolved(self) -> bool:
        """Whether somebody may still have to do something."""
        return self.status != "resolved"


class RunList(Answer, frozen=True, kw_only=True):
    """The body of ``/runs``."""

    runs: list[Run] = []


class IncidentList(Answer, frozen=True, kw_only=True):
    """The body of ``/incidents``."""

    incidents: list[Incident] = []


class SeriesList(Answer, frozen=True, kw_only=True):
    """The body of ``/runs/{run}/series``."""

    series: list[Series] = []


class Agent(Answer, frozen=True, kw_only=True):
    """The body of ``/agent``."""

    version: str = ""
    directory: str = ""
    uptime_seconds: Number = None
    lag_seconds: Number = None
    records: int = 0
    dropped: int = 0
