"""A job that knows nothing of us: what it logged of itself, and what was recorded of it."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from torchvitals.agent.offline import diagnose_directory
from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import LAUNCHER_RANK, Event, Step

JOBS = Path(__file__).parent / "strangers" / "jobs"
LIMIT = 800
"""Seconds for a training of twenty: the machine may be busy with anything."""


def need(*packages: str) -> None:
    """Skip where a framework is not installed, and fail where skipping would hide it."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        why = f"no {' and no '.join(missing)}; install with: pip install {' '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)


class Watched:
    """What one job said of itself and what was recorded of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        runs = [child for child in (directory / "runs").iterdir() if child.is_dir()]
        assert len(runs) == 1, runs
        self.run = runs[0]
        self.records = [(entry.hello.rank, entry.record) for entry in RunReader(self.run).read()]
        self.ranks = sorted({rank for rank, _ in self.records if rank != LAUNCHER_RANK})

    def logged(self, rank: int | None = None) -> dict:
        name = "logged.json" if rank is None else f"logged.{rank}.json"
        return json.loads((self.directory / name).read_text())

    def points(self, signal: str, optimizer: int = 0, rank: int = 0) -> list[tuple[int, float]]:
        """Steps and values as they were written."""
        mine = [r for who, r in self.records if isinstance(r, Step) and (who, r.optimizer) == (rank, optimizer)]
        return [(record.step, record.values[signal]) for record in mine if signal in record.values]

    def series(self, signal: str, optimizer: int = 0, rank: int = 0) -> dict[int, float]:
        """Step → value."""
        return dict(self.points(signal, optimizer, rank))

    def every(self, signal: str, optimizer: int = 0, rank: int = 0) -> list[float]:
        """The values of a signal that must be there on every step, once."""
        found = self.points(signal, optimizer, rank)
        assert [step for step, _ in found] == list(range(len(found))), signal
        return [value for _, value in found]

    def events(self, kind: str) -> list[Event]:
        return [record for _, record in self.records if isinstance(record, Event) and record.kind == kind]

    def assert_healthy(self) -> None:
        """No incident, no probe that failed, nothing lost, one end."""
        report = diagnose_directory(self.run)
        assert [(incident.kind, incident.title) for incident in report.incidents] == []
        assert self.events("fuse") == []
        assert self.events("lost") == []
        assert [event.details["code"] for event in self.events("exit")] == [0] * len(self.ranks)


def python(job: str, *arguments: str) -> list[str]:
    """The command that runs one of our jobs."""
    return [sys.executable, str(JOBS / job), *arguments]


def program(name: str, *arguments: str) -> list[str]:
    """A launcher that was installed beside this interpreter."""
    return [str(Path(sys.executable).parent / name), *arguments]
