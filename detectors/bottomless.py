"""A loss whose sign was turned falls without end: what should be made small is made large."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import LossPast, past_of
from torchvitals.detectors.scalars import (
    NORM,
    TRIPWIRE,
    Magnitudes,
    Mask,
    grown,
    losses,
    magnitudes,
    shortest,
    subjects_of,
)


class Bottomless:
    """A loss that was above zero jumps below it, and runs away from there, and the gradient with it.

    Clipped gradients make a loss climb evenly, without a leap, and one that is below zero has no start to return to:
    neither :class:`~torchvitals.detectors.explosion.Explosion` nor
    :class:`~torchvitals.detectors.divergence.Divergence` can tell. Three keys. It *jumps*: the newest ``known`` losses
    all lay above ``gap`` times their median, and the next lies as far below zero, so that it has not come down through
    zero, as the likelihood of a density or the returns of a policy do. It *runs*: medians of blocks grow ``growing``
    times in each of ``patience`` blocks, up to ``beyond`` times what the loss had been; a likelihood falls like a
    logarithm. And the largest gradient before clipping is ``steeper`` times the largest of before.

    >>> detector = Bottomless()
    >>> for step in range(200):
    ...     loss = 1.0 if step < 100 else -(1.1 ** (step - 100))
    ...     for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=abs(loss))):
    ...         print(finding.first_step, finding.step, round(finding.value, 1))
    100 147 -43.2
    """

    kind: ClassVar[str] = "divergence"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (
        "loss",
        "gradient_norm",
        "gradient_norm_unclipped",
        "tripwire_norm",
        "skipped_steps",
    )

    def __init__(
        self,
        *,
        known: int = 32,  # losses above zero
        gap: float = 0.1,  # of their median; a line down to zero has a last value of a sixteenth
        block: int = 16,
        patience: int = 3,
        growing: float = 1.25,
        beyond: float = 5.0,
        steeper: float = 3.0,
        given_up: int = 12,  # blocks below zero after which it has settled there
    ) -> None:
        self.known, self.gap, self.block, self.patience = known, gap, block, patience
        self.growing, self.beyond, self.given_up = growing, beyond, given_up
        self.steeper = np.log10(steeper)
        self.past = LossPast()
        self.level = np.zeros(0, dtype=np.float32)
        """Median of the loss before it jumped; NaN where it has not. This and what follows once anybody's has."""
        self.since = np.zeros(0, dtype=np.int32)
        self.taken = np.zeros(0, dtype=np.int32)
        """Losses since the jump."""
        self.last = np.zeros(0, dtype=np.float32)
        """Magnitude of the last block, and how many in a row have grown."""
        self.grew = np.zeros(0, dtype=np.int32)
        self.steeper_since = np.zeros(0, dtype=np.float32)
        """Largest height of the two gradient norms since the jump, and before."""
        self.steepest = np.zeros(0, dtype=np.float16)
        self.jumped = False
        """Whether anybody's has."""
        self.fired = np.zeros(0, dtype=bool)

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.fired), subjects_of(reading, self.reads))
        self._grow(subjects)
        _, loss, _, use, negative = losses(reading, subjects)
        self.past = past_of(reading, subjects, self.past)
        if negative is not None or self.jumped:
            self._jump(reading.step, loss, use)
        self._climb(magnitudes(reading, subjects))
        return self._follow(reading.step, use & ~np.isnan(self.level)) if self.jumped else []

    def status(self) -> Status:
        if not self.past.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired.any():
            return Status("alarm")
        return Status("ok") if (self.past.count >= self.known).any() else Status("warming_up", "few losses seen")

    def _climb(self, size: Magnitudes) -> None:
        """Keep the largest gradient."""
        heights = size.heights
        if np.count_nonzero(size.usable) < size.usable.size:
            heights = np.where(size.usable, heights, np.nan)
        steep = np.fmax(heights[NORM], heights[TRIPWIRE])
        if self.jumped:
            since = ~np.isnan(self.level)
            np.fmax(self.steeper_since, steep, out=self.steeper_since, where=since)
            steep = np.where(since, np.nan, steep)
        np.fmax(self.steepest, steep.astype(np.float16), out=self.steepest)

    def _jump(self, step: int, loss: NDArray[np.float32], use: Mask) -> None:
        """Note whose loss has just jumped below zero, and forget those that came back."""
        self._make_room(len(loss))
        back = use & ~np.isnan(self.level) & ~(loss < 0)
        self.level[back] = np.nan
        self.steepest[back] = np.fmax(self.steepest[back], self.steeper_since[back])
        rows = np.flatnonzero(use & (loss < 0) & np.isnan(self.level) & (self.past.count > self.known) & ~self.fired)
        before = self.past.newest(rows, self.known, skip=1)
        middle = row_median(before.T)
        gap = self.gap * middle
        clean = (before.min(axis=0, initial=np.inf) > gap) & (loss[rows] < -gap) & (middle > 0)
        fresh = rows[clean]
        self.level[fresh], self.since[fresh] = middle[clean], step
        self.taken[fresh] = self.grew[fresh] = 0
        self.last[fresh], self.steeper_since[fresh] = middle[clean], -np.inf
        self.jumped = bool((~np.isnan(self.level)).any())

    def _follow(self, step: int, use: Mask) -> list[Finding]:
        """Look at the blocks since the jump."""
        self.taken += use
        ended = np.flatnonzero(use & (self.taken % self.block == 0))
        if not len(ended):
            return []
        middle = np.abs(row_median(self.past.newest(ended, self.block).T))
        self.grew[ended] = np.where(middle >= self.growing * self.last[ended], self.grew[ended] + 1, 0)
        self.last[ended] = middle
        steep = self.steeper_since[ended] >= self.steepest[ended] + self.steeper
        far = (self.grew[ended] >= self.patience) & (middle >= self.beyond * self.level[ended])
        certain = ended[far & steep]
        self.fired[certain] = True
        found = [self._finding(int(row), step) for row in certain]
        self.level[ended[self.taken[ended] >= self.given_up * self.block]] = np.nan
        self.level[certain] = np.nan
        return found

    def _finding(self, row: int, step: int) -> Finding:
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.since[row]),
            step=step,
            value=-shortest(self.last[row]),
            threshold=-self.beyond * shortest(self.level[row]),
            subject=row,
            evidence={
                "signal": "loss_sign",
                "level_before": shortest(self.level[row]),
                "gradient_decades": float(self.steeper_since[row] - self.steepest[row]),
            },
        )

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.fired):
            return
        self.steepest, self.fired = grown(self.steepest, subjects, -np.inf), grown(self.fired, subjects)
        if len(self.level):
            self._make_room(subjects)

    def _make_room(self, subjects: int) -> None:
        """For what a jump is followed by."""
        self.level, self.last = grown(self.level, subjects, np.nan), grown(self.last, subjects)
        self.since, self.taken = grown(self.since, subjects), grown(self.taken, subjects)
        self.grew, self.steeper_since = grown(self.grew, subjects), grown(self.steeper_since, subjects, -np.inf)
