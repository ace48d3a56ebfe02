"""What becomes of incidents: open → acknowledged → resolved, and silenced for a while.

A person decides. The engine may go on to refine what an incident says; its life-cycle stays, also over a
restart of the agent. Alerting (see ``alerts.py``) ends by itself some time after the run has ended, so a
pager falls silent while the incident stays open for whoever looks in the morning.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from torchvitals.agent.incident import SEVERITY_ORDER
from torchvitals.agent.store import Store

STATUSES = ("open", "acknowledged", "resolved")
"""The store also knows ``absorbed``: the incident turned out to be part of another one and is not listed."""

_SELECT = """
SELECT i.*, r.name AS run_name FROM incidents AS i LEFT JOIN runs AS r ON r.run = i.run
WHERE ($run IS NULL OR i.run = $run) AND ($id IS NULL OR i.id = $id) AND i.status IN (SELECT unnest($statuses))
"""
_COUNTS = """
SELECT run, severity, count(*) AS open FROM incidents WHERE status IN ('open', 'acknowledged') GROUP BY run, severity
"""


class NoSuchIncidentError(LookupError):
    """There is no incident with this id."""


class ResolvedError(Exception):
    """The incident has been resolved and takes no more changes."""


def incidents(
    store: Store, *, run: str | None = None, statuses: Sequence[str] = STATUSES, identity: str | None = None
) -> list[dict[str, Any]]:
    """Incidents as the API tells them, most severe first, then the newest."""
    parameters = {"run": run, "id": identity, "statuses": list(statuses)}
    told = [_told(row) for row in store.named_query(_SELECT, parameters)]
    return sorted(told, key=lambda i: (SEVERITY_ORDER.get(i["severity"], 9), -i["opened_at"], i["id"]))


def incident(store: Store, identity: str) -> dict[str, Any]:
    """One incident.

    Raises:
        NoSuchIncidentError: unknown id.

    """
    found = incidents(store, identity=identity)
    if not found:
        raise NoSuchIncidentError(identity)
    return found[0]


def acknowledge(store: Store, identity: str, by: str) -> dict[str, Any]:
    """Somebody has taken it."""
    return _change(store, identity, "status = 'acknowledged', acknowledged_by = ?", [by])


def resolve(store: Store, identity: str, now: float) -> dict[str, Any]:
    """It is over; resolving it again changes nothing."""
    if incident(store, identity)["status"] == "resolved":
        return incident(store, identity)
    return _change(store, identity, "status = 'resolved', resolved_at = ?", [now])


def silence(store: Store, identity: str, until: float) -> dict[str, Any]:
    """No alert before ``until``, seconds since the epoch."""
    return _change(store, identity, "silenced_until = ?", [until])


def open_counts(store: Store) -> dict[str, dict[str, int]]:
    """Run → severity → incidents that are not resolved."""
    counts: dict[str, dict[str, int]] = {}
    for row in store.query(_COUNTS):
        counts.setdefault(row["run"], no_incidents())[row["severity"]] = row["open"]
    return counts


def no_incidents() -> dict[str, int]:
    """Zero of each severity."""
    return dict.fromkeys(SEVERITY_ORDER, 0)


def worst(severities: Iterable[str]) -> str | None:
    """The most severe of the words, if any."""
    order = [str(word) for word in SEVERITY_ORDER]
    return min(severities, key=order.index, default=None)


def _change(store: Store, identity: str, assignment: str, values: list[Any]) -> dict[str, Any]:
    if incident(store, identity)["status"] == "resolved":
        raise ResolvedError(identity)
    with store.transaction() as cursor:
        cursor.execute(f"UPDATE incidents SET {assignment} WHERE id = ?", [*values, identity])  # noqa: S608  ours
    return incident(store, identity)


def _told(row: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = msgspec.json.decode(row["body"])
    lifecycle = ("run", "status", "opened_at", "updated_at", "resolved_at", "acknowledged_by", "silenced_until")
    return {**body, **{name: row[name] for name in lifecycle}, "name": row["run_name"] or row["run"]}
