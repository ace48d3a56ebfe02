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
from torchvitals.detectors.allowance import Allowance, Tail
from torchvitals.detectors.block_statistics import Floats, Mask
from torchvitals.detectors.class_order import SHARE, ClassOrder
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.reference import MEAN, MISSING, SCALE, ZERO, Anchor, Ring, View
from torchvitals.detectors.surprise import LEAST_INDEPENDENT, surprise

STATISTICS = ("mean", "scale", "missing", "zero")
KEPT_BLOCKS = 60
ANCHOR_BLOCKS = 32
"""Blocks of the frozen reference. A ramp that begins inside it looks like memory and hides itself: with 64 none of
three ramps of 5 standard deviations from block 25 to 125 was found, with 32 all are, at equal false alarms on
streams with memory (correlation 0.5 to 0.98 between blocks) and on cycles."""
NEEDED = 6
"""The first of ``reads``: without them there is nothing to compare."""
LARGEST_LOG = 100.0
MOST_ROWS = 6e4
"""float16 ends there."""
HOPELESS = 2.5
"""Half of what the false discovery rate asks of a normal tail; compression of heavy tails earns the other half."""


class Contrast(NamedTuple):
    """One window against one reference, all arrays (statistics, subjects)."""

    moved: Mask
    large: Mask
    """Where by ``gradual_factor`` times what is asked for: noise does not bring that about."""
    distance: Floats
    p: Floats


class TwoSampleDetector:
    """Base of ``drift`` and ``prediction_drift``; they differ in the entries they look at.

    Args:
        windows: lengths of the newest window, in blocks: short for jumps, long for small shifts.
        reference_blocks: blocks before the window that it is centred on.
        least_blocks: a reference must hold this many known blocks; below, no test has any power.
        floor: smallest shift of the mean, in standard deviations of single values. Below 0.6 nine
            in ten values are where they were, and daily cycles begin.
        scale_floor: smallest change of log(standard deviation); 0.4 is a factor 1.5.
        missing_floor, zero_floor: smallest change of the share of missing values and of exact zeros.
        share_floor: outputs between 0 and 1 must move at least so far in absolute terms.
        gradual_factor: multiplies the floors against the frozen reference.
        sampling_excess: variance of block means over what their rows explain, up to which rows count as independent.
        trust: power of its p that is believed of the frozen reference, whose blocks say little of a longer memory:
            where one false alarm was asked for in 10,000 tests, the first 280 made 1.9 in cycles of 97 and 0.7 in AR(1)
            with 0.9 when it was 1, and 1.3 and 0.4 with 0.8. With 0.7 a unit changed in ``ImageSegments`` was missed.

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
        "feature_evaluated",
    )
    watches_outputs: ClassVar[bool]

    def __init__(
        self,
        *,
        windows: tuple[int, ...] = (4, 8, 16),
        reference_blocks: int = 16,
        least_blocks: int = 8,
        floor: float = 0.6,
        scale_floor: float = 0.4,
        missing_floor: float = 0.05,
        zero_floor: float = 0.2,
        share_floor: float = 0.03,
        gradual_factor: float = 3.0,
        sampling_excess: float = 1.5,
        trust: float = 0.8,
    ) -> None:
        self.windows = windows
        self.reference_blocks = reference_blocks
        self.least_blocks = least_blocks
        self.floors = np.array([floor, scale_floor, missing_floor, zero_floor])[:, None]
        self.share_floor = share_floor
        self.gradual_factor = gradual_factor
        self.tail = Tail(Allowance())
        self.sampling_excess, self.trust = sampling_excess, trust
        self._ring = Ring(KEPT_BLOCKS)
        self._anchor = Anchor(ANCHOR_BLOCKS, gap=max(windows))
        self._order = ClassOrder(blocks=KEPT_BLOCKS)
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(windows={self.windows}, floors={self.floors[:, 0].tolist()})"

    def allow(self, allowance: Allowance) -> None:
        """Be wrong so often."""
        self.tail.allowance = allowance

    def update(self, reading: Reading) -> list[Finding]:
        """Take one block."""
        if any(name not in reading.values for name in self.reads[:NEEDED]):
            return []
        self._take(reading)
        active = np.flatnonzero(self._ring.seen & ~self._alarmed)
        if self._ring.blocks < self.least_blocks + min(self.windows) or not len(active):
            return []
        view = self._ring.view(active)
        self._anchor.take(view, active)
        contrasts = [self._against_before(view, length) for length in self.windows if self._is_long_enough(length)]
        contrasts.append(self._against_start(view, active))
        contrasts = self._confirmed(contrasts, reading.time)
        if self._is_evaluation(reading):
            return []
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
        self._order.add(values[MEAN], role)
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
            recent = view.values[at][-length:]
            contrast.p[at] = surprise(
                past[at][known[at]],
                recent[np.isfinite(recent)],
                near=self.reference_blocks,
                sampling=view.sampling[at],
                sampling_excess=self.sampling_excess,
            )
        return contrast

    def _against_start(self, view: View, active: NDArray[np.int64]) -> Contrast:
        """The newest blocks against the frozen first blocks of the run."""
        length = self.windows[len(self.windows) // 2]
        level, variance, tau, count = self._anchor.summary(active)
        contrast = self._effect(view, level, length, self.floors * self.gradual_factor)
        independent = count / tau
        enough = (count >= self.least_blocks) & (independent >= LEAST_INDEPENDENT)
        noise = np.maximum(variance, view.sampling)
        shrink = np.minimum(tau / length, 1.0) + np.minimum(tau / np.maximum(count, 1), 1.0)
        degrees = np.where(contrast.moved & enough, independent - 1, 0.0)
        p = blocks.tail_probability(contrast.distance, np.sqrt(noise * shrink), degrees)
        return contrast._replace(p=p**self.trust)

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
        large = distance >= self.gradual_factor * self.floors * unit
        return Contrast(steady, large, distance, np.ones_like(distance))

    def _confirmed(self, contrasts: list[Contrast], time: float) -> list[Contrast]:
        """Those that are more than chance: false discoveries at the allowed rate, until the run's own past is known."""
        entries = contrasts[0].p.shape[-1]
        limit = self.tail.limit()
        likeliest = min(float(c.p[c.moved].min(initial=1.0)) for c in contrasts)
        score = -np.log(max(likeliest * entries, 1e-300)) if likeliest < 1 else -np.inf
        self.tail.note(score, time)
        if self.tail.known:
            return [c._replace(moved=c.moved & (c.p * entries < np.exp(-limit))) for c in contrasts]
        q = float(np.exp(-limit))
        # For all statistics and contrasts together, but where a change is large: of five false alarms in 2.6 million
        # blocks, from bursts and Pareto tails, none was, and three were less unlikely than that.
        share = np.where(np.array([c.large for c in contrasts]), 1.0, len(contrasts) * len(STATISTICS))
        return [
            c._replace(moved=c.moved & blocks.benjamini_hochberg(np.minimum(c.p * each, 1.0), q))
            for c, each in zip(contrasts, share, strict=True)
        ]

    def _is_evaluation(self, reading: Reading) -> bool:
        """Whether a process that has trained goes through a data set, class after class: that is no traffic."""
        trained = reading.values.get("feature_evaluated")
        return trained is not None and bool((trained > 0).any()) and self._order.is_sorted()

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
        contrast, statistic = _clearest(contrasts, place)
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


def _clearest(contrasts: list[Contrast], place: int) -> tuple[Contrast, int]:
    """The contrast and statistic that speak loudest; missing values first, because they explain the others."""
    for statistic in (MISSING, MEAN, SCALE, ZERO):
        moved = [c for c in contrasts if c.moved[statistic, place]]
        if moved:
            return max(moved, key=lambda c: float(c.distance[statistic, place])), statistic
    raise AssertionError("called for a subject that did not move")
