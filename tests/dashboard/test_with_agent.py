"""The dashboard over the real agent: what a job wrote is on the page."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torchvitals.dashboard.client import AgentError, Client
from torchvitals.signals.records import Event, Hello
from torchvitals.signals.spool import SpoolWriter

RUN = "20260101-120000-broken-0001"
PATIENCE = 60.0
STEPS = 200
BROKEN_AT = 150


def spool(directory: Path) -> None:
    """A job whose loss becomes NaN at step 150, as the hooks would write it."""
    now = time.time() - STEPS
    with contextlib.closing(
        SpoolWriter(directory, Hello(run=RUN, name="broken", pid=1, host=socket.gethostname()))
    ) as out:
        out.write(
            Event(now, 0, "facts", {"models": [{"name": "Net", "parameters": 100}], "optimizers": [{"class": "SGD"}]})
        )
        for step in range(STEPS):
            bad = step >= BROKEN_AT
            value = float("nan") if bad else 1.0 / (1 + step)
            values = {"loss": value, "gradient_norm": value, "tripwire_norm": value, "learning_rate": 0.1}
            out.step(step, now + step, values | {"step_seconds": 1.0, "rss_bytes": 1e8})
        out.write(Event(now + STEPS, STEPS - 1, "exit", {"code": 0}))


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """A real agent over a spool directory; its address. Ended by its process id."""
    tmp_path = tmp_path_factory.mktemp("agent")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    runs = tmp_path / "runs"
    spool(runs)
    command = [sys.executable, "-m", "torchvitals.agent.cli", "agent", "--directory", str(runs), "--port", str(port)]
    log = (tmp_path / "agent.log").open("w")
    process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path)})
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()
    log.close()


def first_incident(url: str):
    """Ask until the agent has read the run."""
    client = Client(url)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(AgentError):
                if found := client.incidents(RUN):
                    return found[0]
            time.sleep(0.2)
    finally:
        client.close()
    pytest.fail("the agent has seen no incident")


def test_what_a_job_wrote_is_on_the_pages(agent, pointed, page, texts):
    incident = first_incident(agent)
    pointed(agent)

    runs, one = texts(page()), page(run=RUN)
    why = page(incident=incident.id)

    assert incident.kind == "nonfinite"
    assert incident.first_step == BROKEN_AT
    assert "broken" in runs
    assert "◆ critical" in runs
    said = texts(one).replace("\\", "")
    assert "Net: parameters 100" in said
    assert f"{STEPS - BROKEN_AT} values are NaN or Inf" in said
    assert incident.remedy[:40] in texts(why).replace("\\", "")
    assert f"began at step **{BROKEN_AT}**" in texts(why)


def test_an_acknowledgement_reaches_the_agent(agent, pointed, page):
    incident = first_incident(agent)
    pointed(agent)
    app = page(incident=incident.id)

    app.button(key="Acknowledge-button").click().run()

    client = Client(agent)
    assert client.incident(incident.id).status == "acknowledged"
    app.button(key="Resolve-button").click().run()
    assert client.incident(incident.id).status == "resolved"
    client.close()
