"""What the process takes of the machine, for the step record: memory, load, and what is left."""

from typing import TYPE_CHECKING

from torchvitals.hooks.headroom import Headroom
from torchvitals.hooks.load import MachineLoad
from torchvitals.hooks.throttling import Throttling

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

RSS_EVERY = 4
"""Steps between readings of resident memory in a job whose steps are too short to pay for each."""


class ProcessVitals:
    """Reads the process of ``observer``."""

    def __init__(self, observer: "Observer") -> None:
        guard = observer.recorder.fuse.guard
        self.device_memory = guard("memory", observer.memory.device)
        self._resident = guard("memory", observer.memory.rss_bytes)
        self._mapped = guard("memory", observer.memory.mapped_bytes)
        self._workers = guard("worker memory", lambda: _read_workers(observer))
        self._load = guard("load", MachineLoad().fresh)
        self._throttled = guard("load", Throttling().fresh)
        self._headroom = guard("memory", Headroom().fresh)

    def read(self, step: int, *, in_debt: bool) -> dict[str, float]:
        """Signal → value of what is due at ``step``."""
        values: dict[str, float] = {}
        if step % RSS_EVERY == 0 or not in_debt:
            rss = self._resident()
            if rss is not None:
                values["rss_bytes"] = float(rss)
            mapped = self._mapped()
            if mapped is not None:
                values["mapped_bytes"] = float(mapped)
            values |= self._workers() or {}
        load = self._load()
        if load is not None:
            values["machine_load"] = load
            values |= self._headroom() or {}
            if (throttled := self._throttled()) is not None:
                values["throttled_ratio"] = throttled
        return values


def _read_workers(observer: "Observer") -> dict[str, float]:
    """The memory of the loader's workers, if it has any; where it grows, the code is searched for what fills it."""
    workers = observer.loading.workers
    held = workers.private_bytes()
    if held is None:
        return {}
    if found := workers.suspect(held):
        observer.recorder.event("worker_holder", **found)
    return {"worker_bytes": float(held)}
