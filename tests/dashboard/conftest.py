"""The dashboard's fixtures: a staged agent, the app in Streamlit's own test driver, and a real browser."""

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def load(name: str) -> ModuleType:
    """A module that lies beside the tests; they are no package."""
    full = f"torchvitals_tests_{name}"
    if full not in sys.modules:
        spec = importlib.util.spec_from_file_location(full, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[full] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[full])
    return sys.modules[full]


@pytest.fixture
def staged(monkeypatch):
    """A function that starts a fake agent with so many runs and points the dashboard at it."""
    fake = load("fake_agent")
    servers = []

    def start(*arguments, **options):
        stage = fake.Stage(*arguments, **options)
        servers.append(fake.serve(stage))
        stage.url = f"http://127.0.0.1:{servers[-1].server_address[1]}"
        point_to(monkeypatch, stage.url)
        return stage

    yield start
    let_go()
    for server in servers:
        server.shutdown()
        server.server_close()


def point_to(monkeypatch, url: str) -> None:
    """Make the dashboard ask ``url``; the pooled client of the test before is forgotten."""
    let_go()
    monkeypatch.setenv("TORCHVITALS_URL", url)


def let_go() -> None:
    """Close the pooled client, if there is one, and forget it."""
    from torchvitals.dashboard import panels

    if panels.client.cache_info().currsize:
        panels.client().close()
    panels.client.cache_clear()


@pytest.fixture
def pointed(monkeypatch):
    """Point the dashboard at an address."""
    yield lambda url: point_to(monkeypatch, url)
    let_go()


@pytest.fixture
def page():
    """Draw the page of an address: ``page(run="...")``; what the page raised fails the test."""
    from streamlit.testing.v1 import AppTest

    def draw(**query):
        app = AppTest.from_file(str(ROOT / "dashboard" / "app.py"), default_timeout=60)
        for name, value in query.items():
            app.query_params[name] = value
        app.run()
        assert [error.value for error in app.exception] == []
        return app

    return draw


@pytest.fixture
def texts():
    """Everything a page says, as one string."""

    def said(app) -> str:
        kinds = ("title", "header", "subheader", "markdown", "caption", "code", "error", "warning", "info", "success")
        blocks = [element.value for kind in kinds for element in getattr(app, kind)]
        labels = [f"{metric.label} {metric.value}" for metric in app.metric]
        tables = [frame.value.to_string() for frame in app.dataframe] + [table.value.to_string() for table in app.table]
        return "\n".join(map(str, (*blocks, *labels, *tables)))

    return said


@pytest.fixture
def browser():
    """The class of a Chromium tab, a context manager. Skipped where there is no Chromium, failed in CI."""
    if shutil.which("chromium") is None:
        message = "chromium is not installed; type: sudo apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return load("browser").Browser
