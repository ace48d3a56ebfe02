"""Newest blocks of requests against the run's own past, for every feature at once.

Two keys must turn together. *Significance*: a t-test on block means whose noise is the larger of what lies
between the blocks and what sampling alone would give, whose degrees of freedom are what autocorrelation
leaves of the reference, corrected for all features (Benjamini-Hochberg); or the jump is out of scale with
all jumps of the same length before. *Effect*: at least ``floor`` standard deviations of single values.
And *continuity*: both halves of the window and three quarters of its blocks must have moved the same way.

Two references: the blocks just before (a jump; slow cycles move along with it), and the first blocks of the
run, frozen (a slow ramp, for which ``gradual_factor`` times the effect is asked, since days have cycles).
"""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors import block_statistics as blocks
from torchvitals.detectors.block_statistics import Floats, Mask
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.reference import MEAN, MISSING, SCALE, ZERO, Anchor, Ring, View

STATISTICS = ("mean", "scale", "missing", "zero")
KEPT_BLOCKS = 64
ANCHOR_BLOCKS = 32
"""Blocks of the frozen reference. A ramp that begins inside it looks like memory and hides itself: with 64 none of
three ramps of 5 standard deviations from block 25 to 125 was found, with 32 all are, at equal false alarms on
streams with memory (correlation 0.5 to 0.98 between blocks) and on cycles."""
ROWS_KNOW = 8.0
"""Degrees of freedom are this many times the blocks' when the rows explain the noise; a block has 16 rows or more."""
LARGEST_LOG = 100.0
MOST_ROWS = 1e6
HOPELESS = 2.5
"""Half of what the false discovery rate asks of a normal tail; compression of heavy tails earns the other half."""
SHARE = 2.0
"""Value of ``feature_role`` for outputs between 0 and 1."""


class Contrast(NamedTuple):
    """One window against one reference, all arrays (statistics, subjects)."""

    moved: Mask
    distance: Floats
    p: Floats


class TwoSampleDetector:
    """Base of ``drift`` and ``prediction_drift``; they differ in the entries they look at.

    Args:
        windows: lengths of the newest window, in blocks: short for jumps, long for small shifts.
        reference_blocks: blocks before the window that it is centred on.
        least_blocks: a reference must hold this many known blocks; below, no test has any power.
        least_independent: and this many independent ones, memory considered.
        floor: smallest shift of the mean, in standard deviations of single values. Below 0.6 nine
            in ten values are where they were, and daily cycles begin.
        scale_floor: smallest change of log(standard deviation); 0.4 is a factor 1.5.
        missing_floor, zero_floor: smallest change of the share of missing values and of exact zeros.
        share_floor: outputs between 0 and 1 must move at least so far in absolute terms.
        gradual_factor: multiplies the floors against the frozen reference.
        q: false discovery rate per block. A test is made at every block, and cycles are not noise, so it is small.
        sampling_excess: variance of block means over what their rows explain, up to which rows count as independent.

    """

    kind: ClassVar[str]
    axis: ClassVar[DetectorAxis] = "feature"
    reads: ClassVar[tuple[str, ...]] = (
        "feature_mean",
        "feature_std",
        "feature_missing",
        "feature_zero",
        "feature_rows",
        "feature_role",
    )
    watches_outputs: ClassVar[bool]

    def __init__(
        self,
        *,
        windows: tuple[int, ...] = (4, 8, 16),
        reference_blocks: int = 16,
        least_blocks: int = 8,
        least_independent: float = 5.0,
        floor: float = 0.6,
        scale_floor: float = 0.4,
        missing_floor: float = 0.05,
        zero_floor: float = 0.2,
        share_floor: float = 0.03,
        gradual_factor: float = 3.0,
        q: float = 1e-6,
        sampling_excess: float = 1.5,
    ) -> None:
        self.windows = windows
        self.reference_blocks = reference_blocks
        self.least_blocks = least_blocks
        self.least_independent = least_independent
        self.floors = np.array([floor, scale_floor, missing_floor, zero_floor])[:, None]
        self.share_floor = share_floor
        self.gradual_factor = gradual_factor
        self.q = q
        self.sampling_excess = sampling_excess
        self._ring = Ring(KEPT_BLOCKS)
        self._anchor = Anchor(ANCHOR_BLOCKS, gap=max(windows))
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(windows={self.windows}, q={self.q})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take one block."""
        if any(name not in reading.values for name in self.reads):
            return []
        self._take(reading)
        active = np.flatnonzero(self._ring.seen & ~self._alarmed)
        if self._ring.blocks < self.least_blocks + min(self.windows) or not len(active):
            return []
        view = self._ring.view(active)
        self._anchor.take(view, active)
        contrasts = [self._against_before(view, length) for length in self.windows if self._is_long_enough(length)]
        contrasts.append(self._against_start(view, active))
        return [
            self._finding(reading.step, int(subject), place, contrasts, len(active))
            for place, subject in enumerate(active)
            if any(contrast.moved[:, place].any() for contrast in contrasts)
        ]

    def status(self) -> Status:
        """Warming up until one reference and one window have been filled."""
        if self._alarmed.any():
            return Status("alarm")
        if not self._ring.seen.any():
            return Status("not_checked", "no block of requests with such entries was seen")
        needed = self.least_blocks + min(self.windows)
        if self._ring.blocks < needed:
            return Status("warming_up", f"{self._ring.blocks} of {needed} blocks of requests seen")
        return Status("ok")

    def _take(self, reading: Reading) -> None:
        role = reading.values["feature_role"]
        mine = (role > 0) if self.watches_outputs else (role == 0)
        rows = np.where(mine & reading.present["feature_mean"], reading.values["feature_rows"], 0.0)
        values = np.stack([np.asarray(reading.values[name], np.float64) for name in self.reads[:4]])
        self._ring.add(reading.step, values, np.clip(np.nan_to_num(rows, nan=0.0, posinf=0.0), 0, MOST_ROWS), role)
        grown = len(role) - len(self._alarmed)
        if grown > 0:
            self._alarmed = np.pad(self._alarmed, (0, grown))

    def _is_long_enough(self, length: int) -> bool:
        return self._ring.blocks >= length + self.least_blocks

    def _against_before(self, view: View, length: int) -> Contrast:
        """The newest ``length`` blocks against those just before."""
        past, known = view.values[..., :-length], view.known[..., :-length]
        near = slice(-self.reference_blocks, None)
        level, count = blocks.masked_mean(past[..., near], known[..., near])
        contrast = self._effect(view, level, length, self.floors)
        # No test below would call less than HOPELESS standard errors unlikely: most candidates end here, cheaply.
        error = np.sqrt(blocks.masked_variance(past, known) * (1 / length + 1 / self.reference_blocks))
        contrast = contrast._replace(moved=contrast.moved & (contrast.distance >= HOPELESS * error))
        for statistic, subject in zip(*np.nonzero(contrast.moved & (count >= self.least_blocks)), strict=True):
            at = (statistic, subject)
            contrast.p[at] = self._surprise(past[at][known[at]], view.values[at], length, view.sampling[at])
        return self._confirmed(contrast, self.q)

    def _against_start(self, view: View, active: NDArray[np.int64]) -> Contrast:
        """The newest blocks against the frozen first blocks of the run."""
        length = self.windows[len(self.windows) // 2]
        level, variance, tau, count = self._anchor.summary(active)
        contrast = self._effect(view, level, length, self.floors * self.gradual_factor)
        independent = count / tau
        enough = (count >= self.least_blocks) & (independent >= self.least_independent)
        noise = np.maximum(variance, view.sampling)
        shrink = np.minimum(tau / length, 1.0) + np.minimum(tau / np.maximum(count, 1), 1.0)
        degrees = np.where(contrast.moved & enough, independent - 1, 0.0)
        p = blocks.tail_probability(contrast.distance, np.sqrt(noise * shrink), degrees)
        return self._confirmed(contrast._replace(p=p), self.q)

    def _surprise(self, past: Floats, recent: Floats, length: int, sampling: float) -> float:
        """Chance of such a window after such a past, for one series; 1 where the past is too short to say."""
        series = blocks.compressed(np.append(past, recent[-length:]), past)
        before, after = series[: len(past)], series[len(past) :]
        after = after[np.isfinite(after)]
        distance = abs(after.mean() - before[-self.reference_blocks :].mean())
        noise, tau, jumps, degrees = blocks.noise_of(before, length, sampling)
        independent = len(before) / tau
        count = min(len(before), self.reference_blocks)
        spread = np.sqrt(noise * (min(tau / length, 1.0) + min(tau / count, 1.0)))
        # No more noise than the number of rows explains: then it is known from rows, not from a few blocks.
        degrees_of_rows = ROWS_KNOW if noise <= self.sampling_excess * sampling else 1.0
        options = [(spread, degrees_of_rows * (independent - 1))] if independent >= self.least_independent else []
        options += [(jumps, degrees)] if degrees >= self.least_independent else []
        return min((blocks.student_tail(distance, *option) for option in options), default=1.0)

    def _effect(self, view: View, level: Floats, length: int, floors: Floats) -> Contrast:
        """How far the window has moved, and whether steadily and far enough; ``p`` is still 1."""
        window, known = view.values[..., -length:], view.known[..., -length:]
        after, count = blocks.masked_mean(window, known)
        unit = view.unit.copy()
        # Rare events after none: the spread afterwards is part of the yardstick, or any first event is a miracle.
        variance, _ = blocks.masked_mean(np.exp(2 * np.minimum(window[SCALE], LARGEST_LOG)), known[SCALE])
        unit[MEAN] = np.maximum(unit[MEAN], np.sqrt(variance))
        sign = np.sign(after - level)[..., None]
        away = (window - level[..., None]) * sign / unit[..., None]
        half = length // 2
        older, _ = blocks.masked_mean(away[..., :half], known[..., :half])
        newer, _ = blocks.masked_mean(away[..., half:], known[..., half:])
        following = (known & (away > floors[..., None] / 2)).sum(-1)
        distance = np.abs(after - level)
        steady = (np.minimum(older, newer) >= floors) & (following >= 0.75 * length) & (count >= 0.75 * length)
        steady &= self._matters(view, distance)
        return Contrast(steady, distance, np.ones_like(distance))

    def _confirmed(self, contrast: Contrast, q: float) -> Contrast:
        return contrast._replace(moved=contrast.moved & blocks.benjamini_hochberg(contrast.p, q))

    def _matters(self, view: View, distance: Floats) -> Mask:
        """Shares of a whole must move by ``share_floor`` at all; other entries have their own scale."""
        absolute = np.ones_like(distance, dtype=bool)
        is_share = view.role == SHARE
        absolute[MEAN, is_share] = distance[MEAN, is_share] >= self.share_floor
        absolute[SCALE:, is_share] = False
        absolute[SCALE, view.constant] = False  # its first variation shows in the mean or in the zeros
        return absolute

    def _finding(self, step: int, subject: int, place: int, contrasts: list[Contrast], watched: int) -> Finding:
        self._alarmed[subject] = True
        view = self._ring.view(np.array([subject]))
        contrast, statistic = _clearest(contrasts, place, self.floors)
        onset = self._ring.onset(view, statistic)
        effect = float(contrast.distance[statistic, place] / view.unit[statistic, 0])
        moved = {STATISTICS[i] for c in contrasts for i in np.flatnonzero(c.moved[:, place])}
        return Finding(
            kind=self.kind,
            severity="error" if statistic == MISSING or effect >= 2 else "warning",
            first_step=onset.step,
            step=step,
            value=effect,
            threshold=float(self.floors[statistic, 0]),
            subject=subject,
            evidence=view.describe(onset)
            | {
                "change": STATISTICS[statistic],
                "moved": sorted(moved),
                "shape": "gradual" if onset.gradual else "abrupt",
                "effect": effect,
                "p": float(contrast.p[statistic, place]),
                "features_watched": watched,
            },
        )


def _clearest(contrasts: list[Contrast], place: int, floors: Floats) -> tuple[Contrast, int]:
    """The contrast and statistic that speak loudest; missing values first, because they explain the others."""
    for statistic in (MISSING, MEAN, SCALE, ZERO):
        moved = [c for c in contrasts if c.moved[statistic, place]]
        if moved:
            return max(moved, key=lambda c: float(c.distance[statistic, place] / floors[statistic, 0])), statistic
    raise AssertionError("called for a subject that did not move")
