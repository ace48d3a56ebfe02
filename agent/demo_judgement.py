"""What a demo job must bring, what became of it, and whether the two agree."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from torchvitals.agent.incident import RankedCause
from torchvitals.detectors.detector import Severity


class Job(msgspec.Struct, frozen=True):
    """What the table of demo jobs says of one; see demo_jobs/jobs.py, which is read as JSON."""

    name: str
    tells: str
    command: tuple[str, ...]
    kind: str | None = None
    cause: str = ""
    where: str = ""
    rank: int | None = None
    first_step: tuple[int, int] | None = None
    ranks: int = 0
    fails: bool = False
    """Whether it must end with an exit code other than 0."""
    patience: float = 0.0
    """Seconds after which it is ended from outside, because it never ends; 0 for one that does."""
    more: bool = False
    """Whether it is played only when asked for."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An incident as anybody is told of it: the fields that ``diagnose --json`` and the API share."""

    kind: str
    severity: Severity
    first_step: int
    detected_step: int
    rank: int | None
    where: str
    cause: str
    confidence: float
    causes: list[RankedCause]
    title: str
    explanation: str
    remedy: str


class Outcome(NamedTuple):
    """What became of one job; ``wrong`` is empty when it was judged right."""

    job: Job
    incidents: Sequence[Told]
    wrong: str
    seconds: float


def told(incident: dict[str, Any]) -> Told:
    """The shared fields; what else ``incident`` holds is left out."""
    causes = [{**cause, "against": []} for cause in incident["causes"]]
    return msgspec.convert({**incident, "causes": causes}, Told)


def misjudged(job: Job, incidents: Sequence[Told]) -> str:
    """What is wrong with what was found in ``job``; empty when it is as it must be."""
    expected = int(job.kind is not None)
    if len(incidents) != expected:
        names = ", ".join(incident.kind for incident in incidents) or "none"
        return f"{len(incidents)} incidents instead of {expected}: {names}"
    return _misjudged(job, incidents[0]) if incidents else ""


def _misjudged(job: Job, incident: Told) -> str:
    if incident.kind != job.kind:
        return f"{incident.kind} instead of {job.kind}"
    if incident.cause != job.cause:
        return f"{incident.cause} instead of {job.cause}"
    if job.where not in incident.where:
        return f"at {incident.where or 'no place'} instead of {job.where}"
    if job.rank is not None and incident.rank != job.rank:
        return f"rank {incident.rank} instead of {job.rank}"
    if job.first_step and not job.first_step[0] <= incident.first_step <= job.first_step[1]:
        return f"from step {incident.first_step} instead of {job.first_step[0]}"
    return ""


def disagreement(live: Sequence[Told], offline: Sequence[Told]) -> str:
    """How the agent's store and the offline diagnosis differ; empty when they are equal."""
    if len(live) != len(offline):
        return f"the agent has {len(live)} incidents, diagnose {len(offline)}"
    for mine, theirs in zip(live, offline, strict=True):
        for field in Told.__struct_fields__:
            if getattr(mine, field) != getattr(theirs, field):
                return f"agent and diagnose differ in {field}: {getattr(mine, field)} and {getattr(theirs, field)}"
    return ""
