"""The demo jobs as processes, as many at once as the machine has cores for."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from torchvitals.agent.demo_judgement import Job

JOB_SECONDS = 240.0
"""A demo takes seconds; on a machine without a free core, minutes."""
END_SECONDS = 10.0
LOOK_SECONDS = 0.1


class Ended(NamedTuple):
    """A job that is over; ``failure`` says why it could not play its part, and is empty when it did."""

    job: Job
    failure: str
    seconds: float


class Troupe:
    """Runs each job through ``torchvitals run``; what it prints goes to a file of its name.

    Args:
        directory: where the runs are recorded.
        cores: so many processes that train may run at once; a job of more ranks runs alone.
        say: takes a line for the person who waits.
        seconds: after so many a job is ended that should have ended by itself.

    """

    def __init__(self, directory: Path, cores: int, say: Callable[[str], None], seconds: float = JOB_SECONDS) -> None:
        self._seconds = seconds
        self._directory = directory
        self._cores = cores
        self._say = say
        self._running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}

    def perform(self, jobs: Sequence[Job]) -> Iterator[Ended]:
        """Run all; yield each as it ends. Those still at work when the caller gives up are ended."""
        waiting = sorted(jobs, key=lambda job: -job.ranks)  # what needs the whole machine first, small ones fill up
        try:
            while waiting or self._running:
                while (job := self._next(waiting)) is not None:
                    waiting.remove(job)
                    self._start(job)
                yield from self._collect()
                time.sleep(LOOK_SECONDS)
        finally:
            for process, _ in self._running.values():
                end(process)

    def _next(self, waiting: Sequence[Job]) -> Job | None:
        free = self._cores - sum(max(job.ranks, 1) for job in self._running)
        return next((job for job in waiting if max(job.ranks, 1) <= free or not self._running), None)

    def _start(self, job: Job) -> None:
        self._say(f"running {job.name}: {job.tells}")
        run = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--dir", str(self._directory), "--name", job.name]
        # One thread each, since several share the cores; whoever has set a number of threads keeps it.
        environ = {"OMP_NUM_THREADS": "1", **os.environ}
        with log_of(job, self._directory).open("wb") as output:
            process = subprocess.Popen([*run, *job.command], stdout=output, stderr=subprocess.STDOUT, env=environ)  # noqa: S603 (a demo job of ours)
        self._running[job] = (process, time.monotonic())

    def _collect(self) -> Iterator[Ended]:
        for job, (process, started) in list(self._running.items()):
            seconds = time.monotonic() - started
            failure = self._failure(job, process, seconds)
            if failure is not None:
                del self._running[job]
                yield Ended(job, failure, seconds)

    def _failure(self, job: Job, process: "subprocess.Popen[bytes]", seconds: float) -> str | None:
        """Why the job could not play its part, empty when it did; ``None`` while it plays."""
        if process.poll() is None and seconds <= (job.patience or self._seconds):
            return None
        if process.poll() is None:
            end(process)
            return "" if job.patience else f"took more than {self._seconds:.0f} s"
        if job.patience:
            return f"it ended by itself with exit code {process.returncode}"
        if job.fails and not process.returncode:
            return "it ended well"
        code = process.returncode
        return "" if job.fails or not code else f"exit code {code}: {self._last_line(job)}"

    def _last_line(self, job: Job) -> str:
        lines = log_of(job, self._directory).read_text(errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if not line.startswith("torchvitals: ")), "it said nothing")


def log_of(job: Job, directory: Path) -> Path:
    """The file of what ``job`` prints."""
    return directory / f"{job.name}.log"


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask to end, which ``torchvitals run`` hands on to the job; after a while, insist."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    process.kill()
    process.wait()
