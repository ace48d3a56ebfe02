"""When whom is told: over hours, with a clock that the test moves and a receiver that may refuse."""

import json
from collections.abc import Sequence

import httpx
import msgspec
import pytest
from torchvitals.agent import lifecycle
from torchvitals.agent.alerts import REPEAT_SECONDS, RESOLVED_SECONDS, Alerting
from torchvitals.agent.config import AlertmanagerSink, WebhookSink
from torchvitals.agent.incident import Incident, RankedCause
from torchvitals.agent.payloads import Alert, alert_of, alertmanager_body, webhook_body
from torchvitals.agent.sinks import SinkError, Webhook, make_sink
from torchvitals.agent.store import RunRow, Store

INCIDENT = Incident(
    id="i-1",
    kind="explosion",
    severity="error",
    first_step=40,
    detected_step=41,
    rank=2,
    where="encoder.0",
    cause="learning_rate_too_high",
    confidence=0.93,
    causes=[RankedCause(cause="learning_rate_too_high", confidence=0.93, evidence=["The norm grew 3.1 times a step."])],
    title="The gradients explode",
    explanation="From step 40 on.",
    remedy="Lower the learning rate.",
)


class Receiver:
    """A sink that keeps what it got, or refuses."""

    severity = "warning"

    def __init__(self, name: str = "test", *, refreshes: bool = False) -> None:
        self.name, self.refreshes = name, refreshes
        self.got: list[Alert] = []
        self.refusal = ""
        self.tries = 0

    def send(self, alerts: Sequence[Alert], now: float) -> None:
        self.tries += 1
        if self.refusal == "bug":
            raise ZeroDivisionError
        if self.refusal:
            raise SinkError(self.refusal)
        self.got += alerts

    def close(self) -> None: ...

    def states(self) -> list[str]:
        return [alert.state for alert in self.got]


class World:
    """A store with one run, receivers, and a clock."""

    def __init__(self, *receivers: Receiver) -> None:
        self.now = 10_000.0
        self.store = Store(":memory:")
        self.receivers = receivers
        self.alerting = self.restarted()

    def restarted(self) -> Alerting:
        return Alerting(self.store, self.receivers, clock=lambda: self.now, jitter=lambda: 1.0)

    def say(self, incident: Incident = INCIDENT, ended: float | None = None, first_read: float = 9_000.0) -> None:
        row = RunRow(run="r-1", name="job", ended=ended, first_read=first_read)
        self.store.commit(row, incidents=[incident], now=self.now)

    def pass_(self, seconds: float, step: float = 5.0) -> None:
        for _ in range(max(1, int(seconds / step))):
            self.now += step
            self.alerting.tick()


def test_alertmanager_is_reminded_every_minute_and_of_the_end_for_five() -> None:
    receiver = Receiver(refreshes=True)
    world = World(receiver)
    world.say()
    world.pass_(190)
    assert receiver.states() == ["firing"] * 4

    lifecycle.resolve(world.store, "i-1", world.now)
    world.pass_(RESOLVED_SECONDS + 3 * REPEAT_SECONDS)
    resolved = receiver.got[4:]
    assert {alert.state for alert in resolved} == {"resolved"}
    assert len(resolved) == RESOLVED_SECONDS // REPEAT_SECONDS
    assert resolved[-1].annotations["summary"] == INCIDENT.title
    assert resolved[-1].link


def test_a_webhook_is_told_once_then_of_the_end() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say()
    world.pass_(600)
    lifecycle.resolve(world.store, "i-1", world.now)
    world.pass_(600)

    assert receiver.states() == ["firing", "resolved"]


def test_a_refinement_is_news_a_new_number_is_not() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say()
    world.pass_(60)
    world.say(msgspec.structs.replace(INCIDENT, confidence=0.97, explanation="From step 40 on, 17 steps."))
    world.pass_(60)
    assert len(receiver.got) == 1
    world.say(msgspec.structs.replace(INCIDENT, cause="bad_batch"))
    world.pass_(60)
    assert [alert.annotations["cause"] for alert in receiver.got] == ["learning_rate_too_high", "bad_batch"]


def test_a_severity_that_rises_ends_the_alert_under_the_old_labels() -> None:
    receiver = Receiver(refreshes=True)
    world = World(receiver)
    world.say()
    world.pass_(1)
    world.say(msgspec.structs.replace(INCIDENT, severity="critical"))
    world.pass_(40)

    assert [(a.labels["severity"], a.state) for a in receiver.got] == [
        ("error", "firing"),
        ("error", "resolved"),
        ("critical", "firing"),
    ]


def test_a_silence_is_kept_and_ends() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say()
    lifecycle.silence(world.store, "i-1", world.now + 100)
    world.pass_(99)
    assert receiver.got == []
    world.pass_(5)
    assert receiver.states() == ["firing"]


def test_an_acknowledged_incident_sends_no_refinements() -> None:
    receiver, reminded = Receiver("webhook"), Receiver("alertmanager", refreshes=True)
    world = World(receiver, reminded)
    world.say()
    world.pass_(1)
    lifecycle.acknowledge(world.store, "i-1", "ada")
    world.say(msgspec.structs.replace(INCIDENT, cause="bad_batch"))
    world.pass_(120)

    assert receiver.states() == ["firing"]
    assert reminded.got[-1].annotations["acknowledged_by"] == "ada"


def test_alerts_are_over_some_time_after_the_run_and_the_incident_stays_open() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say()
    world.pass_(10)
    world.say(ended=world.now)
    world.pass_(299)
    assert receiver.states() == ["firing"]
    assert world.alerting.firing["error"] == 1
    world.pass_(5)
    assert receiver.states() == ["firing", "resolved"]
    assert world.alerting.firing["error"] == 0
    assert lifecycle.incident(world.store, "i-1")["status"] == "open"


def test_old_news_raises_no_alert() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say(ended=2_000.0, first_read=9_000.0)
    world.pass_(600)
    assert receiver.got == []


def test_below_its_severity_a_sink_is_not_told() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say(msgspec.structs.replace(INCIDENT, severity="info"))
    world.pass_(10)
    assert receiver.got == []


@pytest.mark.parametrize("refusal", ["down for maintenance", "bug"])
def test_a_failing_sink_backs_off_and_silences_no_other(refusal: str) -> None:
    broken, sound = Receiver("broken"), Receiver("sound")
    broken.refusal = refusal
    world = World(broken, sound)
    world.say()
    world.pass_(600)
    assert sound.states() == ["firing"]
    assert broken.tries <= 6 + 600 / 60
    assert world.alerting.standings["broken"]["failed"] == broken.tries

    broken.refusal = ""
    world.pass_(65)
    assert broken.states() == ["firing"]


def test_a_restarted_agent_goes_on_where_it_was() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say()
    world.pass_(5)
    world.alerting = world.restarted()
    world.pass_(60)
    lifecycle.resolve(world.store, "i-1", world.now)
    world.alerting = world.restarted()
    world.pass_(60)
    assert receiver.states() == ["firing", "resolved"]


def test_an_incident_absorbed_by_another_is_over_for_whoever_was_told() -> None:
    receiver = Receiver()
    world = World(receiver)
    world.say()
    world.pass_(1)
    world.store.commit(RunRow(run="r-1", name="job", first_read=9_000.0), withdrawn=["i-1"], now=world.now)
    world.pass_(2)

    assert receiver.states() == ["firing", "resolved"]
    assert lifecycle.incidents(world.store) == []


def told(**changes) -> dict:
    body = msgspec.to_builtins(INCIDENT)
    return {**body, "run": "r-1", "name": "job", "opened_at": 100.0, "acknowledged_by": None, **changes}


def test_alertmanager_body() -> None:
    alert = alert_of(told(), "http://d:1/", runbooks="http://wiki/vitals")
    (body,) = alertmanager_body([alert], now=1000.0, lasting=300.0)

    assert body == {
        "labels": {"alertname": "explosion", "job": "job", "run": "r-1", "incident": "i-1", "severity": "error"},
        "annotations": {
            "summary": "The gradients explode",
            "description": "From step 40 on.",
            "remedy": "Lower the learning rate.",
            "cause": "learning_rate_too_high",
            "confidence": "0.93",
            "evidence": "The norm grew 3.1 times a step.",
            "where": "encoder.0",
            "rank": "2",
            "first_step": "40",
            "runbook_url": "http://wiki/vitals#explosion",
        },
        "startsAt": "1970-01-01T00:01:40.000Z",
        "endsAt": "1970-01-01T00:21:40.000Z",
        "generatorURL": "http://d:1/?incident=i-1",
    }
    assert all(isinstance(text, str) for text in [*body["labels"].values(), *body["annotations"].values()])


def test_webhook_body_of_two_alerts_one_of_them_over() -> None:
    alerts = [alert_of(told(), "http://d"), alert_of(told(id="i-2", severity="critical"), "http://d", ends=200.0)]
    body = webhook_body(alerts, receiver="torchvitals", external_url="http://d")

    assert (body["version"], body["status"]) == ("4", "firing")
    assert body["commonLabels"] == {"alertname": "explosion", "job": "job", "run": "r-1"}
    assert [a["status"] for a in body["alerts"]] == ["firing", "resolved"]
    assert body["alerts"][0]["endsAt"] == "0001-01-01T00:00:00Z"
    assert body["alerts"][1]["endsAt"] == "1970-01-01T00:03:20.000Z"
    assert len({a["fingerprint"] for a in body["alerts"]}) == 2
    with pytest.raises(ValueError, match="at least one"):
        webhook_body([], receiver="x", external_url="")


def test_a_text_without_end_is_cut_with_a_mark() -> None:
    alert = alert_of(told(explanation="x" * 10_000), "http://d")
    assert len(alert.annotations["description"]) == 4000
    assert alert.annotations["description"].endswith("…")


def test_sinks_speak_http_with_their_token_and_follow_no_redirect(monkeypatch) -> None:
    seen: list[httpx.Request] = []

    def server(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"Location": "http://elsewhere/"}) if len(seen) > 1 else httpx.Response(200)

    monkeypatch.setenv("PAGER", "s3cret")
    settings = WebhookSink(url="http://pager/hook", token="env:PAGER")
    sink = Webhook(settings, "http://d", httpx.MockTransport(server))
    sink.send([alert_of(told(), "http://d")], 0.0)
    assert seen[0].headers["Authorization"] == "Bearer s3cret"
    assert json.loads(seen[0].content)["version"] == "4"
    with pytest.raises(SinkError, match="answered 302"):
        sink.send([alert_of(told(), "http://d")], 0.0)
    assert len(seen) == 2
    assert "s3cret" not in sink.name


def test_a_sink_nobody_listens_at_is_an_error_not_a_crash() -> None:
    sink = make_sink(AlertmanagerSink(url="http://127.0.0.1:9"), "http://d")
    with pytest.raises(SinkError, match="ConnectError"):
        sink.send([alert_of(told(), "http://d")], 0.0)
    sink.close()
