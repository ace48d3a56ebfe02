"""Who must know, and when: incidents become alerts, every second, from what the store says.

Nothing is queued in memory. What has to be sent is the difference between the incidents and the table of
deliveries, so an agent that was killed, or a receiver that was away for a day, is caught up with by itself.

When is an alert over? When a person resolves its incident, or ``resolve_after`` seconds after its run has
ended (and at least as long after the incident was found). The incident itself stays open until a person
resolves it. A silenced incident sends nothing until the silence is over; an acknowledged one sends no more
refinements, only its end.
"""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec
from torchvitals.agent.guard import guarded
from torchvitals.agent.incident import SEVERITY_ORDER
from torchvitals.agent.lifecycle import no_incidents
from torchvitals.agent.payloads import Alert, alert_of
from torchvitals.agent.schema import MERGE_DELIVERY
from torchvitals.agent.sinks import Sink, SinkError
from torchvitals.agent.store import Store

log = logging.getLogger("torchvitals.agent")

REPEAT_SECONDS = 60.0
"""Alertmanager forgets an alert 5 minutes after it was last sent; four may get lost."""
RESOLVED_SECONDS = 300.0
"""So long a resolved alert is repeated, for a receiver that restarts just then."""
UPDATE_SECONDS = 30.0
"""Refinements of an incident are news at most this often."""
LONGEST_BACKOFF = 60.0
TICK_SECONDS = 1.0

_CANDIDATES = """
SELECT i.*, r.name AS run_name, r.ended AS run_ended, r.first_read AS run_first_read
FROM incidents AS i LEFT JOIN runs AS r ON r.run = i.run
WHERE i.status IN ('open', 'acknowledged') OR i.resolved_at >= $since
  OR i.id IN (SELECT incident FROM deliveries WHERE state = 'firing')
ORDER BY i.opened_at, i.id
"""


class Delivery(NamedTuple):
    """What a sink was last told of an incident."""

    alert: Alert
    last_sent: float


class _Standing:
    """How a sink is doing."""

    def __init__(self) -> None:
        self.failures = 0
        self.next_try = 0.0
        self.sent = 0
        self.failed = 0


class Alerting:
    """Keeps receivers in step with the incidents.

    Args:
        store: incidents and deliveries.
        sinks: who is told.
        dashboard_url, runbooks: for links.
        resolve_after: seconds after the end of a run at which its alerts are over.
        horizon: a run that had ended longer ago than this when it was first read raises no alert.
        clock: wall clock.
        jitter: a number in 0..1 that spreads retries.

    """

    def __init__(
        self,
        store: Store,
        sinks: Sequence[Sink],
        *,
        dashboard_url: str = "",
        runbooks: str = "",
        resolve_after: float = 300.0,
        horizon: float = 3600.0,
        clock: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.firing: dict[str, int] = no_incidents()
        """Severity → incidents whose alert is not over."""
        self.errors = 0
        self._store = store
        self._sinks = list(sinks)
        self._standings = {sink.name: _Standing() for sink in sinks}
        self._dashboard_url, self._runbooks = dashboard_url, runbooks
        self._resolve_after, self._horizon = resolve_after, horizon
        self._clock, self._jitter = clock, jitter
        self._wake = threading.Event()

    @property
    def standings(self) -> dict[str, dict[str, int]]:
        """Sink → alerts sent, and deliveries that failed."""
        return {name: {"sent": s.sent, "failed": s.failed} for name, s in self._standings.items()}

    def wake(self) -> None:
        """Something changed: do not wait for the next second."""
        self._wake.set()

    def follow(self, stop: threading.Event) -> None:
        """Work until ``stop``, which is followed by :meth:`wake`."""
        while not stop.is_set():
            _, problem = guarded("alerting", self.tick)
            self.errors += bool(problem)
            self._wake.wait(TICK_SECONDS)
            self._wake.clear()
        for sink in self._sinks:
            sink.close()

    def tick(self) -> None:
        """Send to every sink what it has to know now."""
        now = self._clock()
        rows = self._store.named_query(_CANDIDATES, {"since": now - RESOLVED_SECONDS})
        known = [(row, self._alert(row, now)) for row in rows if self._is_recent(row)]
        firing = no_incidents()
        for _, alert in known:
            firing[alert.severity] += alert.ends is None
        self.firing = firing
        for sink in self._sinks if known else ():
            standing = self._standings[sink.name]
            if now >= standing.next_try:
                self._serve(sink, standing, known, now)

    def _serve(self, sink: Sink, standing: _Standing, known: list[tuple[dict[str, Any], Alert]], now: float) -> None:
        told = self._deliveries(sink.name)
        runs: dict[str, list[Alert]] = {}
        for row, alert in known:
            if is_due(row, alert, told.get(alert.incident), sink, now):
                runs.setdefault(row["run"], []).append(alert)
        for alerts in runs.values():
            outdated = [old for alert in alerts if (old := _outdated(told.get(alert.incident), alert, now))]
            refusal, problem = guarded(f"sink {sink.name}", partial(_attempt, sink, [*outdated, *alerts], now))
            if not self._judge(standing, sink, problem or refusal, len(alerts)):
                return
            self._remember(sink.name, alerts, now)

    def _judge(self, standing: _Standing, sink: Sink, refusal: str | None, count: int) -> bool:
        if not refusal:
            standing.failures = 0
            standing.sent += count
            return True
        delay = min(LONGEST_BACKOFF, 2.0**standing.failures) * (0.5 + self._jitter() / 2)
        standing.failures += 1
        standing.failed += 1
        standing.next_try = self._clock() + delay
        log.warning("%s: %s; next try in %.0f s", sink.name, refusal, delay)
        return False

    def _alert(self, row: dict[str, Any], now: float) -> Alert:
        body = msgspec.json.decode(row["body"])
        incident = {
            **body,
            "run": row["run"],
            "name": row["run_name"] or row["run"],
            "opened_at": row["opened_at"],
            "acknowledged_by": row["acknowledged_by"],
        }
        ends = alert_ends(row, self._resolve_after, now)
        return alert_of(incident, self._dashboard_url, runbooks=self._runbooks, ends=ends)

    def _is_recent(self, row: dict[str, Any]) -> bool:
        ended = row["run_ended"]
        return ended is None or row["run_first_read"] - ended <= self._horizon

    def _deliveries(self, sink: str) -> dict[str, Delivery]:
        rows = self._store.query("SELECT incident, content, last_sent FROM deliveries WHERE sink = ?", [sink])
        return {
            row["incident"]: Delivery(msgspec.json.decode(row["content"], type=Alert), row["last_sent"]) for row in rows
        }

    def _remember(self, sink: str, alerts: Sequence[Alert], now: float) -> None:
        with self._store.transaction() as cursor:
            for alert in alerts:
                content = msgspec.json.encode(alert).decode()
                cursor.execute(MERGE_DELIVERY, (sink, alert.incident, alert.state, content, now))


def alert_ends(row: Mapping[str, Any], resolve_after: float, now: float) -> float | None:
    """When the alert of an incident was over; ``None`` while it fires."""
    if row["resolved_at"] is not None:
        return float(row["resolved_at"])
    if row["run_ended"] is None:
        return None
    end = float(max(row["run_ended"], row["opened_at"]) + resolve_after)
    return end if now >= end else None


def is_due(row: Mapping[str, Any], alert: Alert, told: Delivery | None, sink: Sink, now: float) -> bool:
    """Whether a sink has to hear of an alert now."""
    since = now - told.last_sent if told else 0.0
    if alert.ends is not None:
        if told is None:
            return False
        if told.alert.ends is None:
            return True
        return sink.refreshes and since >= REPEAT_SECONDS and now - alert.ends <= RESOLVED_SECONDS
    if (row["silenced_until"] or 0.0) > now:
        return False
    if told is None:
        return SEVERITY_ORDER[row["severity"]] <= SEVERITY_ORDER[sink.severity]
    if told.alert.ends is not None or (sink.refreshes and since >= REPEAT_SECONDS):
        return True
    settled = row["status"] == "acknowledged" and not sink.refreshes
    return not settled and _is_news(told.alert, alert) and since >= UPDATE_SECONDS


def _is_news(old: Alert, new: Alert) -> bool:
    words = ("summary", "cause", "where", "acknowledged_by")
    return old.labels != new.labels or any(old.annotations.get(w) != new.annotations.get(w) for w in words)


def _outdated(told: Delivery | None, alert: Alert, now: float) -> Alert | None:
    """An incident whose severity rose has other labels, so the alert under the old ones is over."""
    if told is None or told.alert.labels == alert.labels or told.alert.ends is not None:
        return None
    return msgspec.structs.replace(told.alert, ends=now)


def _attempt(sink: Sink, alerts: Sequence[Alert], now: float) -> str:
    """Send; return why it was refused, or nothing."""
    try:
        sink.send(alerts, now)
    except SinkError as error:
        return str(error)
    return ""
