"""How often the kernel killed for memory in a control group: the one witness of a silent death."""

from pathlib import Path

FILES = ("memory.events", "memory.oom_control")
"""cgroup v2, then v1: both have a line ``oom_kill N``."""


class OomKills:
    """Counts kills since it was made, in the control group that the process is in now.

    Args:
        proc, cgroups: where the kernel's file systems are mounted.
        pid: whose control group; it is looked up once, so it may be asked after the process is gone.

    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup"), pid: str = "self") -> None:
        self._cgroups = cgroups
        self._places = self._find(proc / pid / "cgroup")
        self._before = self._read()

    def since(self) -> int | None:
        """Kills since construction; ``None`` where the kernel does not say."""
        now = self._read()
        return None if now is None or self._before is None else now - self._before

    def _read(self) -> int | None:
        for place in self._places:
            for file in FILES:
                try:
                    lines = (place / file).read_text().splitlines()
                except OSError:
                    continue
                for line in lines:
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return None

    def _find(self, groups: Path) -> list[Path]:
        try:
            lines = groups.read_text().splitlines()
        except OSError:
            lines = []
        places = []
        for _, controllers, path in (line.split(":", 2) for line in lines if line.count(":") >= 2):
            if not controllers:
                places.append(self._cgroups / path.lstrip("/"))
            elif "memory" in controllers.split(","):
                places.append(self._cgroups / "memory" / path.lstrip("/"))
        # inside a container the path is the host's, and the container's own group is the mount itself
        return [*places, self._cgroups, self._cgroups / "memory"]
