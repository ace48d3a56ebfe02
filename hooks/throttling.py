"""Whether the processor is too hot: the kernel counts the time in which its clock was held down."""

import os
import time
from collections.abc import Callable
from pathlib import Path


class Throttling:
    """The share of time in which a CPU package this process may run on was throttled, once in ``every`` seconds.

    Intel's counters (Linux 5.6 and later, ``Documentation/ABI/testing/sysfs-devices-system-cpu``); most virtual
    machines have none.

    Args:
        every: seconds between looks.
        cpus: where the kernel describes the processors.
        clock: monotonic seconds, injected for tests.
    """

    def __init__(
        self,
        every: float = 1.0,
        *,
        cpus: Path = Path("/sys/devices/system/cpu"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._every, self._clock = every, clock
        self._read_at = clock()
        self._counters = _counters(cpus)
        self._before = [_milliseconds(counter) for counter in self._counters]

    def fresh(self) -> float | None:
        """From 0 to 1; ``None`` when it was read a moment ago, or cannot be known here."""
        elapsed = self._clock() - self._read_at
        if elapsed < self._every or not self._counters:
            return None
        now = [_milliseconds(counter) for counter in self._counters]
        grown = [after - before for after, before in zip(now, self._before, strict=True)]
        self._read_at += elapsed
        self._before = now
        return min(1.0, max(0.0, max(grown) / (1e3 * elapsed)))


def _counters(cpus: Path) -> list[Path]:
    """One file for each package; all cores of a package tell the same."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    found: dict[str, Path] = {}
    for number in allowed:
        counter = cpus / f"cpu{number}" / "thermal_throttle" / "package_throttle_total_time_ms"
        try:
            counter.read_text()
        except OSError:
            break  # where one has none, or may not be read, none has
        try:
            package = (cpus / f"cpu{number}" / "topology" / "physical_package_id").read_text()
        except OSError:
            package = ""
        found.setdefault(package, counter)
    return list(found.values())


def _milliseconds(counter: Path) -> float:
    try:
        return float(counter.read_text())
    except (OSError, ValueError):
        return 0.0
