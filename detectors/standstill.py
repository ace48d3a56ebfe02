"""A standstill: nothing has been learnt, and the steps are too small for anything to be."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.block_statistics import row_median
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.loss_past import KEPT, LossPast, past_of
from torchvitals.detectors.rate_past import RatePast, rates_of
from torchvitals.detectors.scalars import grown, losses, scalar, shortest, single, subjects_of

MOST_DECADES = 12.0
"""More is no clipping; their power stays finite in single precision."""
TOGETHER = 64
"""Ranks whose windows end at the same step; those of the next as many end one step later, to spread the work."""


class Standstill:
    """The loss is where it began after hundreds of steps, and all steps seen were next to nothing, though there is a
    gradient to follow.

    Three keys. *Flat*: the median of the newest ``window`` losses is not below that of the first by more than
    ``progress`` of it and ``certain`` times their noise. *Small*: no step that was measured has moved any layer by more
    than a share of its weights; ``adaptive`` for optimizers that adapt to the size of the gradient, where a rate of
    1e-7 for a large model is still meant; ``plain`` for others; and ``swamped`` where ``eps`` makes all but nothing of
    the denominator, so that an adaptive optimizer does not adapt. *Alive*: the gradient before clipping, as a share of
    the weights, would move them by ``audible`` at a rate of 1, or ``eps`` has swamped it: a job that goes on from where
    it had converged has none.

    A rate that still rises is waited for.

    >>> detector = Standstill()
    >>> for step in range(400):
    ...     reading = Reading.of(step, loss=2.3 + 0.01 * (step % 3), learning_rate=1e-6, update_share=3e-7)
    ...     for finding in detector.update(reading):
    ...         print(finding.kind, finding.step, finding.value)
    plateau 319 3e-07
    """

    kind: ClassVar[str] = "plateau"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (
        "loss",
        "learning_rate",
        "update_share",
        "epsilon_share",
        "gradient_norm",
        "gradient_norm_unclipped",
        "gradient_norm_unclamped",
        "skipped_steps",
    )

    def __init__(
        self,
        *,
        horizon: int = 300,  # losses; the slowest healthy start took 150
        progress: float = 0.02,
        certain: float = 2.5,  # standard errors of the difference of two medians
        adaptive: float = 1e-6,  # Adam at 1e-7 and weights of 0.02 begins with 5e-6
        plain: float = 1e-5,  # 1000 such steps are 1 % of the weights, if all went the same way
        swamped: float = 1e-4,
        epsilon: float = 0.95,  # a twentieth is left of the usual step
        audible: float = 0.01,  # fresh nets have 0.1 to 3
        rising: float = 1.5,
    ) -> None:
        self.horizon, self.window, self.progress, self.certain = horizon, KEPT, progress, certain
        self.adaptive, self.plain, self.swamped = adaptive, plain, swamped
        self.epsilon, self.audible, self.rising = epsilon, audible, rising
        self.past = LossPast()
        self.early = np.zeros((2, 0), dtype=np.float32)
        """Median of the first window of losses, and the learning rate at its end."""
        self.rates = RatePast()
        self.share = np.zeros((2, 0), dtype=np.float32)
        """Largest share of the weights that a step has moved, and the newest."""
        self.least_epsilon = np.zeros(0, dtype=np.float32)
        """Smallest share of ``eps`` in a denominator; NaN where there is none."""
        self.clipped = np.zeros(0, dtype=np.float16)
        """Powers of ten by which the newest gradient was clipped, to 1 %: half precision has no ratio above 65,504."""
        self.over = np.zeros(0, dtype=bool)
        """Whether this rank has been judged for good."""
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        subjects = max(len(self.over), subjects_of(reading, self.reads))
        self._grow(subjects)
        if self.over.all():
            return []
        use = losses(reading, subjects).usable
        self.past = past_of(reading, subjects, self.past)
        self.rates = rates_of(reading, subjects, self.rates)
        self._measure(reading, subjects)
        age = self.past.count - np.arange(subjects) // TOGETHER % self.window  # windows of some ranks end later
        ended = np.flatnonzero(use & (age > 0) & (age % self.window == 0) & ~self.over)
        if not len(ended):
            return []
        middle = row_median(self.past.whole(ended).T)
        new = np.isnan(self.early[0, ended])
        self.early[:, ended[new]] = middle[new], self.rates.newest[ended[new]]
        return self._judge(reading.step, ended, middle)

    def status(self) -> Status:
        if not self.past.count.any():
            return Status("not_checked", "no loss was seen")
        if self.fired:
            return Status("alarm")
        return Status("ok") if self.over.all() else Status("warming_up", f"fewer than {self.horizon} losses seen")

    def _measure(self, reading: Reading, subjects: int) -> None:
        """Keep what sampled steps say; a rank that has moved too far is not looked at any more."""
        if "update_share" not in reading.values:
            return
        share, sent = scalar(reading, "update_share", subjects)
        self.share = np.where(sent, single(np.stack([np.fmax(self.share[0], share), share])), self.share)
        epsilon, _ = scalar(reading, "epsilon_share", subjects)
        self.least_epsilon = np.fmin(self.least_epsilon, single(epsilon))
        after, scaled, clamped = (scalar(reading, name, subjects)[0] for name in self.reads[4:7])
        before = np.fmax(scaled, clamped)
        known = (after > 0) & (before > 0) & np.isfinite(before) & np.isfinite(after)
        decades = np.log10(before[known]) - np.log10(after[known])
        self.clipped[known] = np.clip(decades, -MOST_DECADES, MOST_DECADES)
        self.over |= self.share[0] > np.maximum(self.swamped, self.plain)

    def _judge(self, step: int, rows: NDArray[np.intp], middle: NDArray[np.float64]) -> list[Finding]:
        early, rate_then = self.early[:, rows]
        (largest, newest), rate, epsilon = self.share[:, rows], self.rates.newest[rows], self.least_epsilon[rows]
        swamped = epsilon >= self.epsilon
        limit = np.where(swamped, self.swamped, np.where(np.isnan(epsilon), self.plain, self.adaptive))
        with np.errstate(divide="ignore", invalid="ignore"):
            alive = swamped | (newest / rate * 10.0 ** self.clipped[rows].astype(np.float32) >= self.audible)
        steady = (rate > 0) & (rate <= self.rising * rate_then)
        noise = self.certain * np.sqrt(np.pi / self.window) * self.past.whole(rows).std(axis=0, dtype=np.float64)
        progressed = early - middle > self.progress * np.abs(early) + noise
        self.over[rows] |= progressed
        stuck = (self.past.count[rows] >= self.horizon) & steady & alive & ~progressed
        stuck &= (newest > 0) & (largest <= limit)
        found = np.flatnonzero(stuck)
        self.over[rows[found]] = True
        self.fired |= bool(len(found))
        return [
            self._finding(int(rows[place]), step, float(limit[place]), swamped=bool(swamped[place])) for place in found
        ]

    def _finding(self, row: int, step: int, limit: float, *, swamped: bool) -> Finding:
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=int(self.past.first_step[row]),
            step=step,
            value=shortest(self.share[0, row]),
            threshold=limit,
            subject=row,
            evidence={
                "signal": "update_share",
                "loss": shortest(self.early[0, row]),
                "clipped": 10.0 ** float(self.clipped[row]),
                "epsilon_share": shortest(self.least_epsilon[row]) if swamped else 0.0,
            },
        )

    def _grow(self, subjects: int) -> None:
        if subjects <= len(self.over):
            return
        self.early = grown(self.early.T, subjects, np.nan).T.copy()
        self.share = grown(self.share.T, subjects).T.copy()
        self.least_epsilon = grown(self.least_epsilon, subjects, np.nan)
        self.clipped = grown(self.clipped, subjects)
        self.over = grown(self.over, subjects)
