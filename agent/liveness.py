"""Is the process that wrote a spool still there? The difference between a hang and a death."""

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from torchvitals.signals.records import Hello

REUSE_TOLERANCE = 60.0
"""A process that started this many seconds after the spool was opened is another one with the same number;
wide, because a clock may have been set in between and process numbers return after hours."""


class Liveness:
    """Tells whether a writer lives.

    Args:
        silent_after: seconds without a record after which a writer on another host is taken for gone.
        clock: wall clock.
        host: the name of this host, as writers put it into their ``Hello``.
        proc: the process file system.

    """

    def __init__(
        self,
        *,
        silent_after: float = 120.0,
        clock: Callable[[], float] = time.time,
        host: str = "",
        proc: Path = Path("/proc"),
    ) -> None:
        self._silent_after = silent_after
        self._clock = clock
        self._host = host or socket.gethostname()
        self._proc = proc

    def is_gone(self, hello: Hello, last_seen: float) -> bool:
        """Whether the writer will write no more. A silent process on this host that lives is not gone."""
        if hello.host != self._host or not self._proc.is_dir():
            return not self._clock() - last_seen <= self._silent_after
        return not self._lives(hello)

    def _lives(self, hello: Hello) -> bool:
        try:
            fields = (self._proc / str(hello.pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            return False
        if fields[0] == "Z":
            return False
        ticks = float(fields[19])  # field 22 of proc(5): start time after boot
        return self._boot_time() + ticks / os.sysconf("SC_CLK_TCK") <= hello.started + REUSE_TOLERANCE

    def _boot_time(self) -> float:
        lines = (self._proc / "stat").read_text().splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith("btime ")), 0.0)
