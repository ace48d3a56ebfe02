"""What ``diagnose`` says, as JSON (a contract) and as Markdown."""

import json
from collections.abc import Iterator
from typing import Any

from torchvitals.agent.incident import SEVERITY_ORDER, Incident
from torchvitals.agent.offline import Report
from torchvitals.agent.what_ran import what_ran
from torchvitals.detectors.detector import Severity


def as_json(report: Report) -> str:
    """One object; other programs read it, so fields are added, never renamed."""
    return json.dumps(
        {
            "run": report.run,
            "name": report.name,
            "ranks": report.ranks,
            "steps": report.steps,
            "checked": report.checked,
            "not_checked": [{"what": item.what, "why": item.why} for item in report.not_checked],
            "incidents": [incident_object(incident) for incident in report.incidents],
        },
        indent=2,
        allow_nan=False,
    )


def incident_object(incident: Incident) -> dict[str, Any]:
    """The fields of an incident that the contract names."""
    return {
        "kind": incident.kind,
        "severity": incident.severity,
        "first_step": incident.first_step,
        "last_equal_step": incident.last_equal_step,
        "detected_step": incident.detected_step,
        "rank": incident.rank,
        "where": incident.where,
        "cause": incident.cause,
        "confidence": incident.confidence,
        "causes": [
            {"cause": cause.cause, "confidence": cause.confidence, "evidence": cause.evidence}
            for cause in incident.causes
        ],
        "title": incident.title,
        "explanation": incident.explanation,
        "remedy": incident.remedy,
        "stacks": incident.stacks,
    }


def reaches(report: Report, severity: Severity) -> bool:
    """Whether any incident is as bad as ``severity`` or worse: what ``--fail-on`` asks."""
    return any(SEVERITY_ORDER[incident.severity] <= SEVERITY_ORDER[severity] for incident in report.incidents)


def place(incident: Incident) -> str:
    """Where and when, in a few words.

    Steps of a service are requests, but the reader knows what was run.
    """
    rank = f"rank {incident.rank}, " if incident.rank is not None else ""
    where = f" in {incident.where}" if incident.where else ""
    first, equal = incident.first_step, incident.last_equal_step
    since = f"step {first}" if equal is None or equal >= first - 1 else f"a step from {equal + 1} to {first}"
    return f"{rank}from {since}{where}"


def headline(report: Report) -> str:
    """One sentence on the run."""
    ranks = f"{report.ranks} rank{'s' if report.ranks != 1 else ''}"
    requests = f", {report.requests} requests recorded beside them" if report.requests else ""
    return f"{report.state}: {report.ending}. {ranks}, {report.steps} steps{requests}."


def verdict(report: Report) -> str:
    """One sentence on its health; silence is only called health where something was looked at."""
    if report.incidents:
        count = len(report.incidents)
        return f"{count} incident{'s' if count > 1 else ''}."
    if not report.checked:
        return "Nothing could be checked."
    return f"No incident in {len(report.checked)} checks."


def as_markdown(report: Report) -> str:
    """A page for an issue tracker or a chat."""
    return "\n".join(_markdown(report)) + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield f"# {report.name} ({report.run})"
    yield ""
    yield f"{headline(report)} {verdict(report)}"
    for incident in report.incidents:
        yield from incident_markdown(incident)
    if ran := what_ran(report.engine):
        yield from ("", "**What ran:**", "")
        yield from (f"- {what}: {told}" for what, told in ran)
    yield ""
    yield f"**Checked:** {', '.join(report.checked) or 'nothing'}"
    if report.not_checked:
        yield ""
        yield "**Not checked:**"
        yield ""
        for item in report.not_checked:
            yield f"- {item.what}: {item.why}"


def incident_markdown(incident: Incident) -> Iterator[str]:
    """The lines of one incident."""
    yield ""
    yield f"## {incident.severity}: {incident.title}"
    yield ""
    yield f"`{incident.kind}`, {place(incident)}, certain at step {incident.detected_step}."
    yield ""
    yield incident.explanation
    yield ""
    yield f"**What to do:** {incident.remedy}"
    yield ""
    yield "| cause | confidence | evidence |"
    yield "|---|---|---|"
    for cause in incident.causes:
        evidence = "<br>".join([*cause.evidence, *(f"against: {text}" for text in cause.against)])
        yield f"| `{cause.cause}` | {cause.confidence:.0%} | {evidence.replace('|', chr(92) + '|')} |"
