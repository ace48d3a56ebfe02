"""Real servers for tests: each on a free port, in a folder of its own, ended by its process id."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from waiting import eventually


def need(binary: str, package: str) -> str:
    """The path of a Debian binary; without it the test is skipped, and fails where skipping would hide it."""
    found = shutil.which(binary)
    if found is None:
        why = f"no {binary}; install it with: apt-get install {package}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """A started server: its URL and its process."""

    def __init__(self, command: list[str], url: str, ready: str, log: Path) -> None:
        self.url = url
        with log.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
        try:
            eventually(lambda: self._alive(log) and answers(url + ready), what=f"{command[0]} ready")
        except AssertionError:
            end(self.process)
            raise

    def _alive(self, log: Path) -> bool:
        assert self.process.poll() is None, log.read_text()[-2000:]
        return True


class Agent:
    """``torchvitals agent`` as a process."""

    def __init__(self, directory: Path, *arguments: str, **environ: str) -> None:
        self.directory = directory
        self.log = directory / f"agent.{free_port()}.log"
        command = [sys.executable, "-m", "torchvitals.agent.cli", "agent", "--port", "0", "--log-format", "text"]
        directory.mkdir(exist_ok=True)
        env = {**os.environ, "TORCHVITALS_DIR": str(directory), "TORCHVITALS_POLL_SECONDS": "0.05", **environ}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, *arguments], env=env, stdout=output, stderr=subprocess.STDOUT, cwd=directory
            )
        self.url = eventually(self._listening, what="the agent's address in its log")
        eventually(lambda: answers(self.url + "/readyz"), what="the agent is ready")

    def _listening(self) -> str:
        text = self.log.read_text()
        assert self.process.poll() is None, text
        found = re.search(r"on (http://\S+?),", text)
        return found[1] if found else ""

    def get(self, path: str) -> dict:
        return httpx.get(f"{self.url}/api/v1{path}", timeout=10).raise_for_status().json()

    def post(self, path: str, body: dict | None = None) -> dict:
        return httpx.post(f"{self.url}/api/v1{path}", json=body or {}, timeout=10).raise_for_status().json()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> int:
        end(self.process)
        return self.process.returncode
