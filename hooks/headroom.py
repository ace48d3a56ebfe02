"""How much more memory the process can take: of the machine, of its control group, of its device."""

import sys
import time
from pathlib import Path

import torch


class Headroom:
    """Bytes that are left, read once in ``every`` seconds: 60 µs then, 0.1 µs otherwise.

    Args:
        every: seconds between looks.
        proc, cgroups: where the kernel's file systems are mounted.
    """

    def __init__(
        self, every: float = 1.0, *, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")
    ) -> None:
        self._every = every
        self._next = 0.0
        self._meminfo = proc / "meminfo"
        self._groups = _groups(proc / "self" / "cgroup", cgroups)

    def fresh(self) -> dict[str, float]:
        """The figures by signal; empty when they were read a moment ago, or cannot be known here."""
        now = time.monotonic()
        if now < self._next:
            return {}
        self._next = now + self._every
        left = [value for value in (self._machine(), *map(_group, self._groups)) if value is not None]
        found = {"memory_headroom_bytes": max(0.0, min(left))} if left else {}
        return found | _device()

    def _machine(self) -> float | None:
        try:
            for line in self._meminfo.read_text().splitlines():
                if line.startswith("MemAvailable:"):
                    return 1024.0 * int(line.split()[1])
        except (OSError, ValueError):
            pass
        return None


def _groups(own: Path, root: Path) -> list[Path]:
    """The folders of control groups whose limits hold for this process, version 2."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    path = next((line[3:] for line in lines if line.startswith("0::")), "")
    places = [root / path.lstrip("/"), *(root / path.lstrip("/")).parents]
    return [place for place in dict.fromkeys(places) if (place / "memory.max").is_file()]


def _group(place: Path) -> float | None:
    """What a group has left; ``None`` without a limit. File pages that nobody uses can be taken back."""
    try:
        limit = (place / "memory.max").read_text().strip()
        if limit == "max":
            return None
        used = int((place / "memory.current").read_text())
        idle = (place / "memory.stat").read_text().partition("inactive_file ")[2].split(None, 1)
        return float(int(limit) - used + (int(idle[0]) if idle else 0))
    except (OSError, ValueError):
        return None


def _device() -> dict[str, float]:
    """What the driver has free, and what the caching allocator holds and does not use."""
    if "torch.cuda" not in sys.modules or not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return {}
    free, _ = torch.cuda.mem_get_info()
    unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    return {"cuda_headroom_bytes": float(free + unused)}
