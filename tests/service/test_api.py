"""The HTTP contract, asked as the dashboard and other programs ask it."""

import json
import math
import threading
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from servers import free_port
from sick_spool import Job
from torchvitals.agent.api import make_app
from torchvitals.agent.intake import Intake
from torchvitals.agent.lifecycle import acknowledge
from torchvitals.agent.routes import Parts
from torchvitals.agent.run_state import RunState
from torchvitals.agent.store import Store
from torchvitals.agent.stream import Broadcast
from waiting import eventually

RUN_FIELDS = {
    *("run", "name", "state", "role", "ranks", "steps", "started", "last_seen", "host", "command", "loss"),
    *("steps_per_second", "incidents", "worst"),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A sick run with some odd numbers in it."""
    directory = tmp_path_factory.mktemp("runs")
    job = Job(directory, "sick-1")
    job.sicken()
    job.train(1, loss=math.nan)
    job.train(1, loss=-math.inf)
    job.exit(1)
    passed = iter(range(0, 1000, 2))
    with Store(":memory:") as opened:
        intake = Intake([directory], opened, RunState, monotonic=lambda: next(passed))
        for _ in range(8):
            intake.tick()
        yield opened


def client_of(store: Store, token: str = "", *, ready: bool = True) -> TestClient:
    parts = Parts(store, Broadcast(), lambda: {"version": "x"})
    return TestClient(make_app(parts, CollectorRegistry(), token=token, is_ready=lambda: ready))


@pytest.fixture
def client(store: Store) -> TestClient:
    return client_of(store)


def test_runs(client: TestClient) -> None:
    (run,) = client.get("/api/v1/runs").json()["runs"]
    assert set(run) == RUN_FIELDS
    assert (run["run"], run["name"], run["state"], run["role"], run["ranks"]) == (
        "sick-1",
        "sick",
        "failed",
        "train",
        1,
    )
    assert run["steps"] == 102
    assert run["loss"] == "-Infinity"
    assert sum(run["incidents"].values()) >= 1
    assert run["worst"] in run["incidents"]


def test_one_run(client: TestClient) -> None:
    run = client.get("/api/v1/runs/sick-1").json()
    assert set(run) >= RUN_FIELDS | {"facts", "processes", "signals", "profiles", "checked", "not_checked", "events"}
    (process,) = run["processes"]
    assert (process["rank"], process["last_step"], process["state"], process["corrupt"]) == (0, 101, "failed", 0)
    assert "parameter_gradient_norm" in run["profiles"]
    assert {"name": "loss", "unit": "1", "ranks": [0]}.items() <= run["signals"][2].items()
    assert "vanishing" in run["checked"]
    assert run["events"][0]["kind"] == "exit"


def test_series_are_down_sampled_and_say_where_they_are_not_finite(client: TestClient) -> None:
    query = "signals=loss,rss_bytes,nothing&rank=0&points=10"
    body = client.get(f"/api/v1/runs/sick-1/series?{query}").json()
    assert body["run"] == "sick-1"
    loss, rss = body["series"]
    assert (loss["signal"], loss["rank"], loss["optimizer"]) == ("loss", 0, 0)
    assert len(loss["step"]) == 10
    assert loss["step"][-1] == 101
    assert (loss["last"][-1], loss["nonfinite"][-1], loss["max"][-1]) == ("-Infinity", 2, 1.0)
    assert sum(loss["nonfinite"]) == 2
    assert rss["nonfinite"] == [0] * 10

    exact = client.get("/api/v1/runs/sick-1/series?signals=loss&start=99&end=100").json()["series"][0]
    assert exact["step"] == [99, 100]
    assert (exact["last"], exact["min"]) == ([1.0, "NaN"], [1.0, None])


def test_profiles(client: TestClient) -> None:
    body = client.get("/api/v1/runs/sick-1/profiles?signal=parameter_gradient_norm&points=4").json()
    assert body["entries"] == [f"layers.{n}.weight" for n in range(5)]
    assert body["step"][-1] == 90
    assert len(body["step"]) <= 4
    assert body["values"][-1] == pytest.approx([1e-12, 1e-9, 1e-5, 1e-3, 1.0])


def test_the_life_of_an_incident(client: TestClient) -> None:
    incidents = client.get("/api/v1/incidents?status=open,acknowledged&run=sick-1").json()["incidents"]
    vanishing = next(incident for incident in incidents if incident["kind"] == "vanishing")
    path = f"/api/v1/incidents/{vanishing['id']}"
    assert vanishing["status"] == "open"
    assert (vanishing["run"], vanishing["name"]) == ("sick-1", "sick")
    assert client.get("/api/v1/runs/sick-1/incidents").json()["incidents"] == incidents

    taken = client.post(f"{path}/acknowledge", json={"by": "ada"}).json()
    assert (taken["status"], taken["acknowledged_by"]) == ("acknowledged", "ada")
    silenced = client.post(f"{path}/silence", json={"seconds": 60}).json()
    assert silenced["silenced_until"] > taken["opened_at"]
    over = client.post(f"{path}/resolve").json()
    assert over["status"] == "resolved"
    assert client.post(f"{path}/resolve").json() == over
    assert client.get(path).json() == over
    refused = client.post(f"{path}/acknowledge", json={"by": "bob"})
    assert (refused.status_code, refused.json()["error"]["what"]) == (409, f"incident `{vanishing['id']}` is resolved")


@pytest.mark.parametrize(
    ("path", "status", "what"),
    [
        ("/api/v1/runs/none", 404, "no run `none`"),
        ("/api/v1/runs/none/series?signals=loss", 404, "no run `none`"),
        ("/api/v1/runs/none/profiles?signal=x", 404, "no run `none`"),
        ("/api/v1/runs/none/incidents", 404, "no run `none`"),
        ("/api/v1/incidents/none", 404, "no incident `none`"),
        ("/api/v1/runs/sick-1/series", 422, "query.signals: Field required"),
        ("/api/v1/runs/sick-1/series?signals=loss&points=0", 422, "query.points"),
        ("/api/v1/runs/sick-1/series?signals=loss&rank=two", 400, "rank `two`"),
        ("/api/v1/incidents?status=closed", 400, "status `closed`"),
        ("/api/v1/nothing", 404, "Not Found"),
    ],
)
def test_errors_say_what_and_what_next(client: TestClient, path: str, status: int, what: str) -> None:
    answer = client.get(path)
    assert answer.status_code == status
    assert what in answer.json()["error"]["what"]
    assert answer.json()["error"]["hint"]


def test_a_token_guards_everything_but_the_probes(store: Store) -> None:
    client = client_of(store, "s3cret")
    for path in ("/api/v1/runs", "/metrics", "/api/v1/stream"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers={"Authorization": "Bearer guess"}).status_code == 401
    assert client.get("/api/v1/runs", headers={"Authorization": "Bearer s3cret"}).status_code == 200
    assert client.get("/healthz").status_code == 200


def test_a_strangers_web_page_may_not_ask(client: TestClient) -> None:
    resolve = "/api/v1/incidents/none/resolve"
    assert client.post(resolve, headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.post(resolve, headers={"Origin": "http://localhost:7412"}).status_code == 404


def test_probes_and_documentation(client: TestClient, store: Store) -> None:
    assert client.get("/healthz").text == "ok\n"
    assert client.get("/readyz").status_code == 200
    assert client_of(store, ready=False).get("/readyz").status_code == 503
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    assert "/api/v1/runs/{run}/series" in paths
    assert all(operation["summary"] for path in paths.values() for operation in path.values())


def test_alerts_of_others_are_kept_the_newest_state_of_each(client: TestClient) -> None:
    alert = {"status": "firing", "labels": {"alertname": "DiskFull"}, "annotations": {"summary": "full"}, "x": 1}
    grafana = {"version": "1", "orgId": 1, "title": "t", "alerts": [alert, {**alert, "labels": {"alertname": "Other"}}]}
    assert client.post("/api/v1/alerts", json=grafana).json() == {"stored": 2}
    client.post("/api/v1/alerts", json={"alerts": [{**alert, "status": "resolved", "valueString": "[]"}]})

    kept = {a["labels"]["alertname"]: a["status"] for a in client.get("/api/v1/alerts").json()["alerts"]}
    assert kept == {"DiskFull": "resolved", "Other": "firing"}
    assert client.post("/api/v1/alerts", json={"alerts": [{"labels": {"n": 1}}]}).status_code == 422


def test_the_stream_tells_what_changes(tmp_path: Path) -> None:
    broadcast = Broadcast()
    with Store(":memory:") as store:
        app = make_app(Parts(store, broadcast, dict), CollectorRegistry(), token="", is_ready=lambda: True)
        port = free_port()
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run)
        thread.start()
        eventually(lambda: server.started)
        lines: list[str] = []
        with httpx.stream("GET", f"http://127.0.0.1:{port}/api/v1/stream", timeout=20) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            stream = response.iter_lines()
            assert next(stream) == "retry: 2000"
            broadcast.publish("run", {"run": "r", "loss": math.nan})
            while not lines or lines[-1] != "":
                line = next(stream)
                lines += [line] if line or lines else []
            broadcast.close()
            assert list(stream) == []  # the end of the agent ends the stream
        server.should_exit = True
        thread.join()

    assert lines[0] == "event: run"
    assert json.loads(lines[1].removeprefix("data: ")) == {"run": "r", "loss": "NaN"}


def test_a_failing_store_is_said_to_be_failing(tmp_path: Path) -> None:
    store = Store(":memory:")
    client = client_of(store)
    store.close()
    answer = client.get("/api/v1/runs")
    assert answer.status_code == 503
    assert "the store failed" in answer.json()["error"]["what"]


def test_acknowledge_wants_a_name(client: TestClient, store: Store) -> None:
    assert client.post("/api/v1/incidents/none/acknowledge", json={}).status_code == 422
    with pytest.raises(LookupError):
        acknowledge(store, "none", "ada")
