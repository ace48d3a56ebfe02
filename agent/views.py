"""Runs as the API tells them."""

from typing import Any

import msgspec
from torchvitals.agent.lifecycle import no_incidents, open_counts, worst
from torchvitals.agent.series import profile_names, signal_list
from torchvitals.agent.store import Store

NEWEST_EVENTS = 200
SUMMARY = (
    *("run", "name", "state", "role", "ranks", "steps", "started", "last_seen"),
    *("host", "command", "loss", "steps_per_second"),
)
PROCESS = ("rank", "pid", "host", "last_step", "last_seen", "state", "dropped", "corrupt")


class NoSuchRunError(LookupError):
    """There is no run with this id."""


def runs(store: Store) -> list[dict[str, Any]]:
    """All runs in the store, the newest first, with their open incidents."""
    counts = open_counts(store)
    rows = store.query("SELECT * FROM runs ORDER BY started DESC, run DESC")
    return [_summary(row, counts.get(row["run"], no_incidents())) for row in rows]


def run(store: Store, identity: str) -> dict[str, Any]:
    """One run in short.

    Raises:
        NoSuchRunError: unknown id.

    """
    row = _row(store, identity)
    return _summary(row, open_counts(store).get(identity, no_incidents()))


def detail(store: Store, identity: str) -> dict[str, Any]:
    """One run with its processes, signals, what was checked, and its newest events.

    Raises:
        NoSuchRunError: unknown id.

    """
    row = _row(store, identity)
    return {
        **_summary(row, open_counts(store).get(identity, no_incidents())),
        "facts": msgspec.json.decode(row["facts"]),
        "processes": store.query(
            f"SELECT {', '.join(PROCESS)} FROM processes WHERE run = ? ORDER BY rank, pid",  # noqa: S608  our own names
            [identity],
        ),
        "signals": signal_list(store, identity),
        "profiles": profile_names(store, identity),
        "checked": msgspec.json.decode(row["checked"]),
        "not_checked": msgspec.json.decode(row["not_checked"]),
        "events": _events(store, identity),
    }


def _row(store: Store, identity: str) -> dict[str, Any]:
    found = store.query("SELECT * FROM runs WHERE run = ?", [identity])
    if not found:
        raise NoSuchRunError(identity)
    return found[0]


def _summary(row: dict[str, Any], counts: dict[str, int]) -> dict[str, Any]:
    summary = {name: row[name] for name in SUMMARY}
    return {**summary, "incidents": counts, "worst": worst(word for word, count in counts.items() if count)}


def _events(store: Store, identity: str) -> list[dict[str, Any]]:
    sql = "SELECT time, step, rank, kind, details FROM events WHERE run = ? ORDER BY time DESC LIMIT ?"
    rows = store.query(sql, [identity, NEWEST_EVENTS])
    return [{**row, "details": msgspec.json.decode(row["details"])} for row in rows]
