"""When to hunt for a leak: the process keeps growing, step after step, long after it should have settled."""

from collections import deque
from itertools import pairwise

from torchvitals.hooks.leaks import Found, LeakHunt
from torchvitals.hooks.memory import Memory, give_back
from torchvitals.hooks.recorder import Recorder

SLOW_BYTES = 16 << 20
"""Growth before a hunt, up to which the 5 to 9 MB that a hunt takes are given back: they would be filled by the leak
before it shows again. Beyond that they do not matter, and what is given back with them might: the allocator keeps
the job's own activations of the last step as well, 60 MB in a small convolutional net."""


class LeakWatch:
    """Samples resident memory and starts a hunt on suspicion.

    Args:
        recorder: told what the hunt found.
        every: steps between samples; 16 keeps a sample below 0.1 µs a step.
        blocks: samples that must all have grown; allocator warm-up and caches that fill once do not last.
        reaches: the samples are compared at these distances as well, since 5 kB a step take 200 steps to a megabyte,
            and an arena of the allocator grows by 132 kB at a time.
        least_bytes: growth over those samples below which nobody would notice.
        uneven: one block may grow this many times as much as another: what a hunt would find to grow less evenly it
            would not name. A pool of the allocator that is made once, behind three samples of some kB, looked like
            a leak else: three hunts, a second in all, in one of two healthy runs of an MLP.
        hunts: how often a run may be hunted; a hunt walks all objects, some 100 ms each of three times.

    What grows at every sample is hunted from sample to sample. What grew only over a longer distance is hunted so as
    well, and where that names nothing, over that distance: what is kept at each evaluation does not grow in between.
    """

    def __init__(
        self,
        recorder: Recorder,
        *,
        every: int = 16,
        blocks: int = 4,
        reaches: tuple[int, ...] = (1, 4, 16),
        least_bytes: int = 1 << 20,
        uneven: float = 4.0,
        hunts: int = 3,
    ) -> None:
        self._recorder = recorder
        self._memory = Memory()
        self._every = every
        self._least = least_bytes
        self._uneven = uneven
        self._blocks = blocks
        self._reaches = reaches
        self._recent: deque[int] = deque(maxlen=blocks * max(reaches) + 1)
        self._left = hunts
        self._hunt: LeakHunt | None = None
        self._spacing = self._wider = 1
        """Of the hunt's samples, and of the next hunt's where this one names nothing; in samples of the memory."""
        self._due = 0
        self._unnamed: Found | None = None
        self._slow = False
        """Whether the memory that a hunt takes would hide what is hunted."""
        self._samples = 0
        self._next = every
        self._rest_until = 0

    SAMPLES_PER_HUNT = 3

    def step(self, step: int) -> None:
        """A step has ended."""
        if step < self._next:
            return
        self._next = step - step % self._every + self._every
        rss = self._memory.rss_bytes()
        if rss is None:
            return
        self._recent.append(rss)
        if self._hunt is None:
            if not self._left or step < self._rest_until or not (reach := self._suspicious()):
                return
            self._left -= 1
            self._begin(step, spacing=1, wider=reach)
            self._slow = max(self._recent) - min(self._recent) < SLOW_BYTES
        if step < self._due:
            return
        self._due = step + self._spacing * self._every
        self._sample(step)
        if self._slow:
            give_back()

    def _suspicious(self) -> int:
        """Over which distance it has grown; 0 if over none."""
        return next((reach for reach in self._reaches if self._grew(reach)), 0)

    def _begin(self, step: int, *, spacing: int, wider: int) -> None:
        self._hunt = LeakHunt()
        self._samples = 0
        self._spacing, self._wider, self._due = spacing, wider, step

    def _grew(self, reach: int) -> bool:
        """Whether the newest samples, ``reach`` apart, have grown each time and about as much each time."""
        if len(self._recent) <= self._blocks * reach:
            return False
        samples = [self._recent[-1 - reach * block] for block in range(self._blocks, -1, -1)]
        growths = [later - earlier for earlier, later in pairwise(samples)]
        evenly = 0 < max(growths) <= self._uneven * min(growths)
        return evenly and samples[-1] - samples[0] >= self._least

    def _sample(self, step: int) -> None:
        if self._hunt is None:
            return
        self._recorder.busy = True
        self._hunt.sample(step)
        self._samples += 1
        found = self._hunt.report() if self._samples >= self.SAMPLES_PER_HUNT else None
        self._recorder.busy = False
        if self._samples < self.SAMPLES_PER_HUNT:
            return
        if not (found and found["holder"]) and self._wider > self._spacing:
            self._unnamed = found
            self._begin(step + self._every, spacing=self._wider, wider=self._wider)
            return
        self._hunt = None
        found, self._unnamed = found or self._unnamed, None
        # The next hunt waits as long as this run is old: a slow leak gets a longer look each time.
        self._rest_until = 2 * step
        if found:
            self._left = self._left if "limit" in found else 0  # behind a buffer that fills up there may be a leak
            self._recorder.event("holder", **found)
