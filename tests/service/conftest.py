"""Agents and Debian's servers for one test each."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Agent, Server, end, free_port, need


@pytest.fixture
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Alertmanager whose only receiver is nobody."""
    binary, folder, port = (
        need("prometheus-alertmanager", "prometheus-alertmanager"),
        tmp_path_factory.mktemp("am"),
        free_port(),
    )
    (folder / "alertmanager.yml").write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\ntemplates: []\n")
    command = [
        binary,
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    server = Server(command, f"http://127.0.0.1:{port}", "/-/ready", folder / "log")
    yield server
    end(server.process)


@pytest.fixture
def start_agent(tmp_path: Path):
    """Starts agents on ``tmp_path / "runs"``; all are ended with the test."""
    started: list[Agent] = []

    def start(*arguments: str, **environ: str) -> Agent:
        started.append(Agent(tmp_path / "runs", *arguments, **environ))
        return started[-1]

    yield start
    for agent in started:
        end(agent.process)
