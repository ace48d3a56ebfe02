"""The envelope against one that keeps everything and looks at all of it each time."""

import numpy as np
import pytest
from torchvitals.detectors.envelope import UNKNOWN, Envelope

LAG, BLOCK = 32, 16
FLOORS = (0.1, 1e-30)


class SlowEnvelope:
    """One series of one subject."""

    def __init__(self, floor, phase):
        self.floor, self.phase = np.log10(floor), phase
        self.heights, self.steps = [], []
        self.first = UNKNOWN

    def add(self, step, height, tolerance):
        self.heights.append(height)
        self.steps.append(step)
        count = len(self.heights)
        if count < LAG:
            early = self.heights[: max(2, count // 4)]
            leaps = [n for n, one in enumerate(early) if one > early[0] + tolerance]
            self.first = max([*early[: leaps[0] if leaps else None], self.floor])

    def bound(self):
        return max([self.first, *self.heights[:-LAG]])

    def recent_bound(self):
        settled = self.heights[:-LAG]
        if len(settled) < BLOCK // 4:
            return self.bound()
        newest = (len(settled) - 1 + self.phase) % BLOCK + 1
        return max(settled[-(newest + 4 * BLOCK) :])

    def since(self, level, step):
        held = zip(self.steps[-LAG:], self.heights[-LAG:], strict=True)
        return min([step, *(at for at, height in held if height > level)])


def stream(seed, steps, subjects):
    """Heights of two series that wander and leap, what is not finite among them, and who sent them."""
    rng = np.random.default_rng(seed)
    heights = np.cumsum(rng.normal(scale=0.2, size=(steps, 2, subjects)), axis=0)
    heights[rng.random(heights.shape) < 0.02] += 4.0
    for odd in (np.inf, np.nan):
        heights[rng.random(heights.shape) < 0.02] = odd
    present = rng.random(heights.shape) < np.array([1.0, 0.9, 0.5])[:subjects]
    return heights.astype(np.float32).astype(np.float64), present


def taken(envelope, step, heights, sent, tolerance=2.0):
    """Hand over the heights of one step, and who was heard."""
    use = sent & np.isfinite(heights)
    envelope.add(step, heights, use, tolerance)
    return np.flatnonzero(use)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("series", [0, 1])
@pytest.mark.parametrize("together", [True, False], ids=["together", "each for itself"])
def test_bounds_are_those_of_an_envelope_that_keeps_everything(seed, series, together):
    heights, present = stream(seed, 400, 3)
    heights, present = heights[:, series], present[:, series]
    if together:
        heights, present = np.nan_to_num(heights, posinf=3.0), np.ones_like(present)
    tolerance = np.array([0.3, 2.0, 4.0])
    envelope = Envelope(FLOORS[series], dated=True)
    slow = [SlowEnvelope(FLOORS[series], phase) for phase in range(3)]
    envelope.grow(3)
    for step, (now, sent) in enumerate(zip(heights, present, strict=True)):
        assert envelope.bound.tolist() == [one.bound() for one in slow]
        assert envelope.recent_bound().tolist() == [one.recent_bound() for one in slow]
        for subject in taken(envelope, step, now, sent, tolerance):
            slow[subject].add(step, now[subject], tolerance[subject])
    level = float(np.median(slow[0].heights[-LAG:]))

    assert [envelope.since(row, level, 400) for row in range(3)] == [one.since(level, 400) for one in slow]


def test_subjects_that_join_leave_the_others_as_they_were():
    heights, present = stream(7, 120, 3)
    heights, present = heights[:, 0], present[:, 0]
    together, joined = Envelope(), Envelope()
    together.grow(3)
    present[:50, 2] = False
    for step, (now, sent) in enumerate(zip(heights, present, strict=True)):
        subjects = 2 if step < 50 else 3
        joined.grow(subjects)
        taken(together, step, now, sent)
        taken(joined, step, now[:subjects], sent[:subjects])

    assert joined.bound.tolist() == together.bound.tolist()
    assert joined.known.tolist() == together.known.tolist()
