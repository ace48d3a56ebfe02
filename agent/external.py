"""Alerts of others that are sent to us: Alertmanager's webhook format 4, which Grafana extends.

Kept beside our own incidents, so that one page shows both; nothing here diagnoses them.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from pydantic import BaseModel, Field
from torchvitals.agent.payloads import fingerprint
from torchvitals.agent.schema import MERGE_EXTERNAL
from torchvitals.agent.store import Store

KEPT_ALERTS = 1000
"""The newest of them; a chatty sender must not fill the disk."""


class ExternalAlert(BaseModel):
    """One alert; fields we do not know are ignored."""

    status: str = "firing"
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    startsAt: str = ""  # noqa: N815  the format's own word
    endsAt: str = ""  # noqa: N815
    generatorURL: str = ""  # noqa: N815
    fingerprint: str = ""


class WebhookBody(BaseModel):
    """What Alertmanager and Grafana post."""

    version: str = "4"
    status: str = "firing"
    alerts: list[ExternalAlert] = Field(max_length=KEPT_ALERTS)


def store_alerts(store: Store, alerts: Sequence[ExternalAlert], now: float) -> int:
    """Keep each under its fingerprint, the newest state replacing the old one; return how many there were."""
    with store.transaction() as cursor:
        for alert in alerts:
            row = (
                alert.fingerprint or fingerprint(alert.labels),
                alert.status,
                msgspec.json.encode(alert.labels).decode(),
                msgspec.json.encode(alert.annotations).decode(),
                alert.startsAt,
                alert.endsAt,
                alert.generatorURL,
                now,
            )
            cursor.execute(MERGE_EXTERNAL, row)
        cursor.execute(
            "DELETE FROM external_alerts WHERE fingerprint NOT IN "
            "(SELECT fingerprint FROM external_alerts ORDER BY received_at DESC, fingerprint LIMIT ?)",
            [KEPT_ALERTS],
        )
    return len(alerts)


def alerts(store: Store) -> list[dict[str, Any]]:
    """The alerts of others, newest first."""
    rows = store.query("SELECT * FROM external_alerts ORDER BY received_at DESC, fingerprint")
    return [
        {**row, "labels": msgspec.json.decode(row["labels"]), "annotations": msgspec.json.decode(row["annotations"])}
        for row in rows
    ]
