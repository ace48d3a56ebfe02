"""Alerts in other people's formats. Pure functions: an incident in, a body out.

Labels are identity and strings only; whatever may change while the incident grows is an annotation, or each
refinement would be a new alert. The resolved alert carries its annotations and its link again: without them
Alertmanager sends a resolved notification that says nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote

import msgspec

State = Literal["firing", "resolved"]
STILL_FIRING = "0001-01-01T00:00:00Z"
"""What the webhook format says in ``endsAt`` while an alert fires."""
LONGEST_TEXT = 4000
"""Characters of one annotation; receivers cut or refuse what is much longer."""


class Alert(msgspec.Struct, kw_only=True, frozen=True):
    """One incident on its way to somebody. Times are seconds since the epoch."""

    incident: str
    severity: str
    labels: dict[str, str]
    annotations: dict[str, str]
    link: str
    starts: float
    ends: float | None = None
    """When it was over; ``None`` while it fires."""

    @property
    def state(self) -> State:
        """``firing`` or ``resolved``."""
        return "firing" if self.ends is None else "resolved"

    @property
    def fingerprint(self) -> str:
        """Identity: a hash of the labels."""
        return fingerprint(self.labels)


def fingerprint(labels: Mapping[str, str]) -> str:
    """16 hexadecimal digits of the sorted labels; FNV-like in length, as Alertmanager's are.

    >>> fingerprint({"a": "1", "b": "2"}) == fingerprint({"b": "2", "a": "1"})
    True
    """
    text = "\\xff".join(f"{name}\\xfe{labels[name]}" for name in sorted(labels))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def alert_of(
    incident: Mapping[str, Any], dashboard_url: str, *, runbooks: str = "", ends: float | None = None
) -> Alert:
    """The alert for an incident as the API tells it; ``runbooks`` is a page with a section for each kind."""
    labels = {
        "alertname": incident["kind"],
        "job": incident["name"],
        "run": incident["run"],
        "incident": incident["id"],
        "severity": incident["severity"],
    }
    return Alert(
        incident=incident["id"],
        severity=incident["severity"],
        labels={name: str(value) for name, value in labels.items() if value},
        annotations=_annotations(incident, runbooks),
        link=f"{dashboard_url.rstrip('/')}/?incident={quote(incident['id'])}",
        starts=incident["opened_at"],
        ends=ends,
    )


def alertmanager_body(alerts: Sequence[Alert], *, now: float, lasting: float) -> list[dict[str, Any]]:
    """The array that ``POST /api/v2/alerts`` takes. A firing alert ends by itself ``lasting`` seconds from now."""
    return [
        {
            "labels": alert.labels,
            "annotations": alert.annotations,
            "startsAt": timestamp(alert.starts),
            "endsAt": timestamp(now + lasting if alert.ends is None else alert.ends),
            "generatorURL": alert.link,
        }
        for alert in alerts
    ]


def webhook_body(alerts: Sequence[Alert], *, receiver: str, external_url: str) -> dict[str, Any]:
    """Alertmanager's webhook, version 4: one group, firing as long as one of the alerts is.

    Raises:
        ValueError: without alerts there is nothing to say.

    """
    if not alerts:
        raise ValueError("a webhook body needs at least one alert")
    labels = common([alert.labels for alert in alerts])
    return {
        "version": "4",
        "groupKey": "{}:{" + ", ".join(f'{name}="{labels[name]}"' for name in sorted(labels)) + "}",
        "truncatedAlerts": 0,
        "status": "firing" if any(alert.ends is None for alert in alerts) else "resolved",
        "receiver": receiver,
        "groupLabels": labels,
        "commonLabels": labels,
        "commonAnnotations": common([alert.annotations for alert in alerts]),
        "externalURL": external_url,
        "alerts": [_webhook_alert(alert) for alert in alerts],
    }


def common(mappings: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The items that all have.

    >>> common([{"a": "1", "b": "2"}, {"a": "1", "b": "3"}])
    {'a': '1'}
    """
    first, *others = mappings
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in others)}


def timestamp(seconds: float) -> str:
    """RFC 3339 in UTC.

    >>> timestamp(1.5)
    '1970-01-01T00:00:01.500Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _webhook_alert(alert: Alert) -> dict[str, Any]:
    return {
        "status": alert.state,
        "labels": alert.labels,
        "annotations": alert.annotations,
        "startsAt": timestamp(alert.starts),
        "endsAt": STILL_FIRING if alert.ends is None else timestamp(alert.ends),
        "generatorURL": alert.link,
        "fingerprint": alert.fingerprint,
    }


def _annotations(incident: Mapping[str, Any], runbooks: str) -> dict[str, str]:
    evidence = [text for cause in incident["causes"][:1] for text in cause["evidence"]]
    rank = incident["rank"]
    annotations = {
        "summary": incident["title"],
        "description": incident["explanation"],
        "remedy": incident["remedy"],
        "cause": incident["cause"],
        "confidence": f"{float(incident['confidence']):.2f}",
        "evidence": "\n".join(evidence),
        "where": incident["where"],
        "rank": "" if rank is None else str(rank),
        "first_step": str(incident["first_step"]),
        "runbook_url": f"{runbooks}#{incident['kind']}" if runbooks else "",
        "acknowledged_by": incident.get("acknowledged_by") or "",
    }
    return {name: _cut(text) for name, text in annotations.items() if text}


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 2] + " …"
