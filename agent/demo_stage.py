"""``torchvitals up`` beside the demo jobs: its own directory, free ports, and what its agent knows of a run."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import httpx
from torchvitals.agent.commands_up import AGENT_PORT, DASHBOARD_PORT, END_SECONDS, HOST
from torchvitals.agent.errors import CommandError
from torchvitals.agent.ports import free_or_other

READY_SECONDS = 120.0
"""Agent and dashboard take four seconds to start on a free machine; on one where jobs wait for a core, much longer."""
TOLD_SECONDS = 60.0
"""The agent knows the end of a run within a second; the same allowance."""
LOOK_SECONDS = 0.2
ENDED = ("finished", "failed", "lost")


class Stage:
    """Agent and dashboard as processes; a context manager that ends them.

    Args:
        directory: where runs are recorded; the agent's own.
        say: takes a line for the person who waits.

    Raises:
        CommandError: one of the two did not start.

    """

    def __init__(self, directory: Path, say: Callable[[str], None]) -> None:
        self.log = directory / "up.log"
        port, dashboard_port = (_port(wanted, say) for wanted in (AGENT_PORT, DASHBOARD_PORT))
        self.url, self.dashboard_url = f"http://{HOST}:{port}", f"http://{HOST}:{dashboard_port}"
        ourselves = [sys.executable, "-m", "torchvitals.agent.cli", "up", "--dir", str(directory)]
        ports = ["--port", str(port), "--dashboard-port", str(dashboard_port)]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([*ourselves, *ports], stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 (our own command)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(3 * END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()

    def wait_until_ready(self) -> None:
        """Return when the agent has read what there was and the dashboard serves pages."""
        for url in (f"{self.url}/readyz", f"{self.dashboard_url}/_stcore/health"):
            self._eventually(lambda url=url: answer(url) is not None, READY_SECONDS, f"no answer from {url}")  # type: ignore[misc]

    def incidents(self, run: str) -> list[dict[str, Any]]:
        """What the agent's store holds of a run that has ended.

        Raises:
            CommandError: the agent ended, or did not see the end of the run.

        """
        run_url = f"{self.url}/api/v1/runs/{run}"
        self._eventually(lambda: _ended(answer(run_url)), TOLD_SECONDS, f"the agent does not know the end of {run}")
        told = answer(f"{run_url}/incidents")
        return list(told.json()["incidents"]) if told is not None else []

    def wait_for_the_end(self) -> None:
        """Return when somebody has ended agent or dashboard."""
        self.process.wait()

    def _eventually(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if self.process.poll() is not None:
                raise CommandError(f"agent and dashboard ended: {self._last_words()}; all of it: {self.log}")
            if time.monotonic() > deadline:
                raise CommandError(f"{otherwise} within {seconds:.0f} s; see {self.log}")
            time.sleep(LOOK_SECONDS)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        ours = [line for line in lines if line.startswith("torchvitals: ")]
        return (ours or lines or ["nothing was said"])[-1].removeprefix("torchvitals: ")


def answer(url: str) -> httpx.Response | None:
    """What ``url`` answers when it answers well."""
    try:
        response = httpx.get(url, timeout=5)
    except httpx.HTTPError:
        return None
    return response if response.is_success else None


def _ended(response: httpx.Response | None) -> bool:
    return response is not None and response.json()["state"] in ENDED


def _port(wanted: int, say: Callable[[str], None]) -> int:
    port = free_or_other(HOST, wanted)
    if port != wanted:
        say(f"port {wanted} is taken, using {port}")
    return port
