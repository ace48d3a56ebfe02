"""Where alerts go: one small class per receiver. A sink sends or raises; ``alerts.py`` decides when, what and again."""

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
from torchvitals.agent.config import AlertmanagerSink, SinkSettings, secret
from torchvitals.agent.payloads import Alert, alertmanager_body, webhook_body
from torchvitals.detectors.detector import Severity

LASTING_SECONDS = 300.0
"""A firing alert that is not sent again ends by itself after this: the agent died, or was silenced."""


class SinkError(Exception):
    """The receiver did not take it; the message says why."""


class Sink(Protocol):
    """A receiver of alerts."""

    name: str
    """Names it in the log and in the store; holds no secret."""
    severity: Severity
    """Incidents below it are not sent."""
    refreshes: bool
    """Whether it forgets alerts that are not sent again, and repeats are therefore no news to a person."""

    def send(self, alerts: Sequence[Alert], now: float) -> None:
        """Deliver alerts of one run.

        Raises:
            SinkError: they did not arrive and have to be sent again.

        """
        ...

    def close(self) -> None: ...


class _HttpSink:
    def __init__(self, settings: SinkSettings, kind: str, transport: httpx.BaseTransport | None) -> None:
        self.severity = settings.severity
        self.name = f"{kind}@{urlsplit(settings.url).hostname}#{hashlib.sha256(settings.url.encode()).hexdigest()[:4]}"
        token = secret(settings.token) if settings.token else ""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A redirect could carry the token to another host, so none is followed.
        self._client = httpx.Client(
            timeout=settings.timeout, headers=headers, follow_redirects=False, transport=transport
        )

    def close(self) -> None:
        self._client.close()

    def _post(self, url: str, body: Any) -> None:
        try:
            response = self._client.post(url, json=body)
        except httpx.HTTPError as error:
            raise SinkError(f"{type(error).__name__}: {error}") from error
        if not response.is_success:
            raise SinkError(f"answered {response.status_code}: {response.text[:200]}")


class Alertmanager(_HttpSink):
    """Prometheus Alertmanager, API v2. It forgets what is not repeated, and does the notifying itself."""

    refreshes = True

    def __init__(self, settings: SinkSettings, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(settings, "alertmanager", transport)
        self._url = settings.url.rstrip("/") + "/api/v2/alerts"

    def send(self, alerts: Sequence[Alert], now: float) -> None:
        """One request; every alert it holds is new, changed, or a reminder that it still fires."""
        self._post(self._url, alertmanager_body(alerts, now=now, lasting=LASTING_SECONDS))


class Webhook(_HttpSink):
    """Anything that takes Alertmanager's webhook, version 4: each post is news to somebody, so none is repeated."""

    refreshes = False

    def __init__(self, settings: SinkSettings, external_url: str, transport: httpx.BaseTransport | None = None) -> None:
        super().__init__(settings, "webhook", transport)
        self._url = settings.url
        self._external_url = external_url

    def send(self, alerts: Sequence[Alert], now: float) -> None:  # noqa: ARG002  the sinks' common shape
        """One notification."""
        self._post(self._url, webhook_body(alerts, receiver="torchvitals", external_url=self._external_url))


def make_sink(settings: SinkSettings, dashboard_url: str) -> Sink:
    """The sink for its settings."""
    if isinstance(settings, AlertmanagerSink):
        return Alertmanager(settings)
    return Webhook(settings, dashboard_url)
