"""Ranks that train apart and come back together: averaging of weights in place of gradients (LocalSGD, DiLoCo)."""

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading

FOUND, SHARED, APART = "parameter_sum_found", "collectives", "trains_apart"
"""The weights as a step found them, where ranks share no gradients; what they issued to share theirs; and whether they
meant not to share them with all (post-local SGD)."""
IN_CODE, PLAIN, POSSIBLE = "averaging_in_code", 2, 1
"""Whether the code of a job that shared nothing averages weights: plainly, possibly, or (0) not at all."""


class Gatherings:
    """When all ranks last held the same weights at the beginning of a step, and how often they do.

    Ranks that share no gradients differ after each step of theirs, and are well as long as they come together again:
    within ``slack`` times the longest they have ever been apart. Those that have not done so yet get ``patience``,
    unless they have ever shared gradients: who stops that is told at once, but for post-local SGD, which says so.

    >>> gatherings = Gatherings()
    >>> apart, together = [[0.1], [0.2]], [[0.1], [0.1]]
    >>> for step in range(1, 200):
    ...     found = together if step % 8 == 0 and step < 100 else apart
    ...     gatherings.take(Reading.of(step, collectives=[[0], [0]], parameter_sum_found=found))
    ...     if step in (5, 90, 112, 113):
    ...         print(step, gatherings.awaited(step))
    5 True
    90 True
    112 True
    113 False
    """

    def __init__(
        self,
        *,
        patience: int = 512,  # steps; DiLoCo was published with 500 between two averages
        slack: float = 2.0,  # once late is a matter of the last batch of an epoch
        habit: int = 3,  # meetings that make a rule: where averaging begins, the first two may lie a step apart
    ) -> None:
        self.patience, self.slack, self.habit = patience, slack, habit
        self.meetings = 0
        self.last: int | None = None
        """The step at whose beginning they were last equal."""
        self.longest = 0
        """Steps between two such, at most."""
        self._began: int | None = None
        self._parted: int | None = None
        """Since when they have trained apart by intent."""
        self._share_gradients = False
        self.planned = False
        """Whether the job's code averages weights, as can be read in it."""

    def take(self, reading: Reading) -> None:
        """What the ranks say of one step."""
        shared = reading.values.get(SHARED)
        if shared is None:
            return
        self._began = reading.step if self._began is None else self._began
        speak = holders(reading, SHARED)
        planned = IN_CODE in reading.values and _any(reading, IN_CODE, PLAIN)
        self.planned |= planned
        apart = planned or (APART in reading.values and bool(holders(reading, APART).any()))
        self._parted = reading.step if apart and self._parted is None else self._parted
        self._share_gradients |= not apart and bool((speak & (shared > 0)).any())
        found = reading.values.get(FOUND)
        if found is None:
            return
        held = holders(reading, FOUND)
        if np.array_equal(held, speak) and all(_alike(found[:, i][held[:, i]]) for i in range(found.shape[1])):
            since = self._since if self.last is None else self.last
            self.meetings += 1
            self.last, self.longest = reading.step, max(self.longest, reading.step - since)

    def awaited(self, step: int) -> bool:
        """Whether ranks that differ at ``step`` are still to come together, as is their way."""
        if self.last is not None:
            return step - self.last <= (self.slack * self.longest if self.meetings >= self.habit else self.patience)
        if self._began is None or (self._share_gradients and self._parted is None):
            return False
        return step - self._since < self.patience

    @property
    def _since(self) -> int:
        """Since when they may be apart."""
        return next((step for step in (self._parted, self._began) if step is not None), 0)

    @property
    def missed(self) -> int | None:
        """The step by which they should have come together again; ``None`` if they never have."""
        return None if self.last is None else self.last + self.longest


def holders(reading: Reading, name: str) -> NDArray[np.bool_]:
    """Who has sent which of the numbers of a signal, be it said of each of them or of whole ranks."""
    rows = reading.values[name]
    return np.broadcast_to(reading.present[name].reshape(len(rows), -1), rows.shape)


def _any(reading: Reading, name: str, least: float) -> bool:
    return bool((reading.values[name][holders(reading, name)] >= least).any())


def _alike(numbers: NDArray[np.float64]) -> bool:
    return bool((numbers == numbers[:1]).all())
