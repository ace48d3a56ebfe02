"""With the real things: the agent as a process, Alertmanager, Prometheus, promtool."""

import subprocess
from functools import partial
from pathlib import Path

import httpx
import pytest
from servers import Agent, Server, end, free_port, need
from sick_spool import Job, sick_run, well_run
from waiting import eventually

pytestmark = pytest.mark.server


def alerts(alertmanager, **filters: str) -> list[dict]:
    return httpx.get(f"{alertmanager.url}/api/v2/alerts", params=filters, timeout=5).json()


def test_alertmanager_receives_the_alert_and_sees_it_resolve(start_agent, alertmanager, tmp_path: Path) -> None:
    agent = start_agent("--alertmanager", alertmanager.url)
    Job(agent.directory, "sick-1").sicken()
    (alert,) = eventually(lambda: alerts(alertmanager), what="the alert at Alertmanager")
    (incident,) = agent.get("/incidents")["incidents"]

    assert alert["status"]["state"] == "active"
    assert alert["labels"] == {
        "alertname": "vanishing",
        "job": "sick",
        "run": "sick-1",
        "incident": incident["id"],
        "severity": incident["severity"],
    }
    assert alert["annotations"]["summary"] == incident["title"]
    assert alert["annotations"]["where"] == incident["where"]
    assert alert["annotations"]["remedy"] == incident["remedy"]
    assert incident["id"] in alert["generatorURL"]

    agent.post(f"/incidents/{incident['id']}/resolve")
    eventually(lambda: not alerts(alertmanager, active="true"), what="the alert resolved at Alertmanager")
    assert agent.get("/agent")["sinks"].popitem()[1] == {"sent": 2, "failed": 0}


def test_an_alert_is_over_some_time_after_its_run(start_agent, alertmanager) -> None:
    agent = start_agent("--alertmanager", alertmanager.url, TORCHVITALS_RESOLVE_AFTER="2")
    sick_run(agent.directory)
    eventually(lambda: alerts(alertmanager), what="the alert at Alertmanager")
    eventually(lambda: not alerts(alertmanager, active="true"), what="the alert resolved at Alertmanager")

    (incident,) = agent.get("/incidents?status=open")["incidents"]
    assert incident["resolved_at"] is None


def test_a_receiver_that_was_away_is_caught_up_with(start_agent, tmp_path: Path) -> None:
    port = free_port()
    agent = start_agent("--alertmanager", f"http://127.0.0.1:{port}")
    Job(agent.directory, "sick-1").sicken()
    eventually(lambda: agent.get("/agent")["errors"]["sinks"], what="a delivery that failed")
    agent.kill()  # what waits is on disk

    binary = need("prometheus-alertmanager", "prometheus-alertmanager")
    config = tmp_path / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    command = [binary, f"--config.file={config}", f"--storage.path={tmp_path}/am", "--cluster.listen-address="]
    url = f"http://127.0.0.1:{port}"
    server = Server([*command, f"--web.listen-address=127.0.0.1:{port}"], url, "/-/ready", tmp_path / "am.log")
    try:
        start_agent("--alertmanager", url)
        assert len(eventually(lambda: alerts(server), what="the alert at Alertmanager")) == 1
    finally:
        end(server.process)


def test_killed_in_the_middle_everything_is_there_once(start_agent) -> None:
    agent = start_agent()
    job = Job(agent.directory, "sick-1")
    for _ in range(2):
        job.train(300)
        eventually(partial(_first_run, agent), what="rows that were committed")
        agent.kill()
        job.train(10)
        agent = start_agent()
    job.sicken()
    job.exit()
    eventually(lambda: agent.get("/runs")["runs"][0]["state"] == "finished", what="the end of the run")

    run = agent.get("/runs/sick-1")
    assert run["steps"] == 2 * 310 + 100
    (loss,) = agent.get("/runs/sick-1/series?signals=loss&points=5000")["series"]
    assert loss["step"] == list(range(run["steps"]))
    assert len(agent.get("/incidents")["incidents"]) == 1
    assert agent.end() == 0


def _first_run(agent: Agent) -> list[dict]:
    return agent.get("/runs")["runs"]


def test_a_second_agent_names_the_holder(start_agent) -> None:
    agent = start_agent()
    with pytest.raises(AssertionError, match=rf"held by process {agent.process.pid}: .* kill {agent.process.pid}"):
        start_agent()


def test_prometheus_scrapes_and_promtool_is_content(start_agent, tmp_path: Path) -> None:
    prometheus, promtool = need("prometheus", "prometheus"), need("promtool", "prometheus")
    agent = start_agent()
    job = Job(agent.directory, "sick-1")
    job.sicken()
    well_run(agent.directory)
    eventually(lambda: agent.get("/incidents")["incidents"], what="the incident")

    text = httpx.get(f"{agent.url}/metrics").text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")

    target = agent.url.removeprefix("http://")
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: torchvitals\n  scrape_interval: 1s\n  honor_labels: true\n"
        f"  static_configs: [{{targets: ['{target}']}}]\n"
    )
    port = free_port()
    command = [prometheus, f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"]
    url = f"http://127.0.0.1:{port}"
    server = Server([*command, f"--web.listen-address=127.0.0.1:{port}"], url, "/-/ready", tmp_path / "prometheus.log")
    try:
        query = {"query": 'torchvitals_training_steps_total{job="sick"}'}
        found = eventually(
            lambda: httpx.get(f"{url}/api/v1/query", params=query).json()["data"]["result"], what="the scraped steps"
        )
        assert found[0]["value"][1] == "100"
        up = httpx.get(f"{url}/api/v1/query", params={"query": "torchvitals_rank_up"}).json()["data"]["result"]
        assert {(s["metric"]["job"], s["value"][1]) for s in up} == {("sick", "1"), ("well", "0")}
    finally:
        end(server.process)
