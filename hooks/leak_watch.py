"""When to hunt for a leak: the process keeps growing, step after step, long after it should have settled."""

from collections import deque
from itertools import pairwise

from torchvitals.hooks.leaks import LeakHunt
from torchvitals.hooks.memory import Memory
from torchvitals.hooks.recorder import Recorder


class LeakWatch:
    """Samples resident memory and starts a hunt on suspicion.

    Args:
        recorder: told what the hunt found.
        every: steps between samples; 16 keeps a sample below 0.1 µs a step.
        blocks: samples that must all have grown; allocator warm-up and caches that fill once do not last.
        least_bytes: growth over those samples below which nobody would notice.
        hunts: how often a run may be hunted; a hunt walks all objects, some 50 ms each of three times.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        every: int = 16,
        blocks: int = 4,
        least_bytes: int = 1 << 20,
        hunts: int = 3,
    ) -> None:
        self._recorder = recorder
        self._memory = Memory()
        self._every = every
        self._least = least_bytes
        self._recent: deque[int] = deque(maxlen=blocks + 1)
        self._left = hunts
        self._hunt: LeakHunt | None = None
        self._samples = 0
        self._rest_until = 0

    SAMPLES_PER_HUNT = 3

    def step(self, step: int) -> None:
        """A step has ended."""
        if step % self._every:
            return
        rss = self._memory.rss_bytes()
        if rss is None:
            return
        self._recent.append(rss)
        if self._hunt is not None:
            self._sample(step)
        elif self._left and step >= self._rest_until and self._suspicious():
            self._left -= 1
            self._hunt = LeakHunt()
            self._samples = 0
            self._sample(step)

    def _suspicious(self) -> bool:
        samples = list(self._recent)
        if len(samples) < (self._recent.maxlen or 0):
            return False
        grew = all(later > earlier for earlier, later in pairwise(samples))
        return grew and samples[-1] - samples[0] >= self._least

    def _sample(self, step: int) -> None:
        if self._hunt is None:
            return
        self._hunt.sample(step)
        self._samples += 1
        if self._samples < self.SAMPLES_PER_HUNT:
            return
        found = self._hunt.report()
        self._hunt = None
        # The next hunt waits as long as this run is old: a slow leak gets a longer look each time.
        self._rest_until = 2 * step
        if found:
            self._left = 0
            self._recorder.event("holder", **found)
