"""How the time passes in which requests are answered: computing, waiting for a core, or waiting for something else."""

import time
from pathlib import Path

from torchvitals.hooks.load import MachineLoad

SCHEDULED = Path("/proc/thread-self/schedstat")
"""Nanoseconds on a core, nanoseconds ready and without one, and turns of the thread that reads it."""


class RequestWork:
    """Compares times of the process with the time of its requests; a look costs 10 µs."""

    def __init__(self) -> None:
        self.answering = 0.0
        """Seconds of answering since the last look."""
        self._computed = time.process_time()
        self._waited = seconds_without_core()
        self._load = MachineLoad().fresh

    def read(self) -> dict[str, float]:
        """The signals since the last look."""
        computed, waited, answering = time.process_time(), seconds_without_core(), self.answering
        told: dict[str, float] = {}
        if answering > 0:
            told["request_cpu_ratio"] = (computed - self._computed) / answering
            if waited is not None and self._waited is not None and waited >= self._waited:
                told["request_starved_ratio"] = (waited - self._waited) / answering
        self._computed, self._waited, self.answering = computed, waited, 0.0
        if (load := self._load()) is not None:
            told["machine_load"] = load
        return told


def seconds_without_core() -> float | None:
    """For how long this thread has been ready to run and others had the cores; ``None`` where nobody counts it."""
    try:
        return int(SCHEDULED.read_text().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return None
