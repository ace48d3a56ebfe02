"""The data loader of the job: how long it made the job wait, and what it is."""

import weakref
from typing import TYPE_CHECKING, Any

from torchvitals.hooks.facts import describe_loader
from torchvitals.hooks.worker_memory import WorkerMemory

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer


class Loading:
    """Listens to the iterators of data loaders."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self.workers = WorkerMemory()
        self._met = observer.recorder.fuse.guard("worker memory", self.workers.met)
        self._last: weakref.ref[Any] | None = None
        self.stored = False
        """Whether the loader reads a stored set; a stream may be a service's requests."""

    def arrived(self, iterator: Any, seconds: float, *, ended: bool) -> None:
        """An iterator answered after ``seconds``; its first answer includes starting workers."""
        self._recorder.phase = "idle"
        if ended:
            return
        self._observer.pending.loader_batches += 1
        if self._last is not None and self._last() is iterator:
            self._recorder.spent["data"] += seconds
            return
        self._last = weakref.ref(iterator)
        self._met(iterator)
        loader = describe_loader(iterator)
        self.stored = loader["sampler"] != "_InfiniteConstantSampler"  # that of an IterableDataset
        self._recorder.learn(loader=loader)
