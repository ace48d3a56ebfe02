"""The dashboard as a person gets it: started by its own command, seen by a real Chromium."""

import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest

pytestmark = [pytest.mark.server, pytest.mark.xdist_group("browser")]

RUN = "20260101-120000-nan_loss-0000"
PATIENCE = 40.0
MARKS = "[...document.querySelectorAll('[data-testid=stVegaLiteChart] .marks')]"
CHARTS = f"{MARKS}.length"
TALL = 3000
"""Pixels: Streamlit draws only the charts that are in sight."""
# Vega draws small charts as SVG and large ones on a canvas.
PAINTED = f"{MARKS}.every(m => m.tagName === 'CANVAS' ? m.width > 100 : m.querySelectorAll('path[d]').length > 5)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(ready, what: str):
    """Ask until the answer is true; a condition, not a nap, ends the wait."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := ready():
            return value
        time.sleep(0.1)
    pytest.fail(f"waited {PATIENCE:.0f} s for {what}")


def answers(url: str) -> bool:
    try:
        return urlopen(f"{url}/_stcore/health", timeout=1).status == 200
    except (URLError, OSError):
        return False


@pytest.fixture
def dashboard(tmp_path):
    """Start ``python -m torchvitals.dashboard`` against an agent's address; ended by its process id."""
    started = []

    def start(agent: str) -> str:
        port = free_port()
        log = (tmp_path / "dashboard.log").open("w")
        command = [sys.executable, "-m", "torchvitals.dashboard", "--url", agent, "--port", str(port)]
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}
        )
        started.append((process, log))
        url = f"http://127.0.0.1:{port}"
        until(lambda: answers(url) or process.poll() is not None, "the dashboard")
        assert process.poll() is None, (tmp_path / "dashboard.log").read_text()
        return url

    yield start
    for process, log in started:
        process.terminate()
        process.wait()
        log.close()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_is_drawn(staged, dashboard, browser, dark):
    url = dashboard(staged().url)
    with browser(dark=dark, height=TALL) as tab:
        tab.open(url, "Open incidents")
        tab.wait("84,210 records")
        tab.open(f"{url}/?run={RUN}", "More signals")
        until(lambda: tab.evaluate(CHARTS) >= 5, "the charts of the run")
        until(lambda: tab.evaluate(PAINTED), "something in every chart")
        tab.click("Layers")
        until(lambda: tab.evaluate(CHARTS) >= 6, "the heat map")
        tab.open(f"{url}/?incident=nan_loss-nonfinite", "What to do")
        until(lambda: tab.evaluate(CHARTS) >= 2, "the evidence")

        assert tab.troubles == []
        background = tab.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
        assert (sum(map(int, background.strip("rgba()").split(",")[:3])) < 200) is dark


def test_links_lead_to_pages_and_back(staged, dashboard, browser):
    url = dashboard(staged().url)
    with browser() as tab:
        tab.open(url, "Open incidents")
        tab.click("log of a negative number")
        tab.wait("What to do")
        assert "incident=nan_loss-nonfinite" in tab.evaluate("location.search")
        tab.click("run nan_loss")
        tab.wait("More signals")
        assert f"run={RUN}" in tab.evaluate("location.search")
        tab.click("All runs")
        tab.wait("Open incidents")
        tab.evaluate("history.back()")
        tab.wait("More signals")


def test_the_link_of_an_alert_leads_to_its_incident(staged, dashboard, browser):
    url = dashboard(staged().url)
    with browser() as tab:
        tab.open(f"{url}/?incident=memory_leak-memory_leak", "What to do")
        tab.click("All runs")
        tab.wait("Open incidents")
        until(lambda: tab.evaluate("location.search") == "", "an address without the incident")


def test_a_live_page_is_refreshed_and_does_not_flicker(staged, dashboard, browser):
    """New values arrive in the charts that are there: no chart is taken away and drawn anew."""
    stage = staged()
    run = "20260101-120000-memory_leak-0000"
    url = dashboard(stage.url)
    with browser(height=TALL) as tab:
        tab.open(f"{url}/?run={run}", "More signals")
        until(lambda: tab.evaluate(CHARTS) >= 4, "the charts")
        until(lambda: tab.evaluate(PAINTED), "something in every chart")
        tab.evaluate(f"{MARKS}.forEach(chart => chart.before = true)")
        signals = stage.stories[run]["ranks"][0]
        stage.stories[run]["ranks"][0] = {name: values[:2300] for name, values in signals.items()}
        tab.wait("2,300")

        assert tab.evaluate(f"{MARKS}.filter(chart => chart.before).length") == tab.evaluate(CHARTS)


def test_a_page_recovers_by_itself_when_the_agent_comes(staged, dashboard, browser):
    stage = staged()
    away = f"http://127.0.0.1:{free_port()}"
    url = dashboard(away)
    with browser() as tab:
        tab.open(url, "torchvitals agent")
        fake = sys.modules["torchvitals_tests_fake_agent"]
        server = fake.serve(stage, int(away.rpartition(":")[2]))
        try:
            tab.wait("Open incidents")
        finally:
            server.shutdown()
            server.server_close()
