"""The envelope against one that keeps everything and looks at all of it each time."""

import numpy as np
import pytest
from torchvitals.detectors.envelope import Envelope

LAG, BLOCK = 32, 16
FLOORS = (0.1, 1e-30)


class SlowEnvelope:
    """One series of one subject."""

    def __init__(self, floor, phase):
        self.floor, self.phase = np.log10(floor), phase
        self.heights, self.steps = [], []
        self.first = np.inf

    def add(self, step, height, tolerance):
        self.heights.append(max(height, np.log10(1e-300)))
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
    """Heights that wander and leap, exact zeros and what is not finite among them, and who sent them."""
    rng = np.random.default_rng(seed)
    heights = np.cumsum(rng.normal(scale=0.2, size=(steps, 2, subjects)), axis=0)
    heights[rng.random(heights.shape) < 0.02] += 4.0
    for odd in (-np.inf, np.inf, np.nan):
        heights[rng.random(heights.shape) < 0.02] = odd
    present = rng.random(heights.shape) < np.array([1.0, 0.9, 0.5])[:subjects]
    return heights.astype(np.float32).astype(np.float64), present


@pytest.mark.parametrize("seed", range(6))
def test_bounds_are_those_of_an_envelope_that_keeps_everything(seed):
    heights, present = stream(seed, 400, 3)
    tolerance = np.array([[0.3, 2.0, 4.0], [2.0, 2.0, 2.0]])
    envelope, slow = Envelope(FLOORS), [[SlowEnvelope(floor, phase) for phase in range(3)] for floor in FLOORS]
    envelope.grow(3)
    for step, (now, sent) in enumerate(zip(heights, present, strict=True)):
        assert envelope.bound().tolist() == [[one.bound() for one in series] for series in slow]
        assert envelope.recent_bound().tolist() == [[one.recent_bound() for one in series] for series in slow]
        envelope.add(step, now, sent, tolerance)
        for series, subject in zip(*np.nonzero(sent & (now < np.inf)), strict=True):
            slow[series][subject].add(step, now[series, subject], tolerance[series, subject])
    level = float(np.median(slow[0][0].heights[-LAG:]))

    assert [envelope.since(row, level, 400) for row in range(3)] == [one.since(level, 400) for one in slow[0]]


def test_subjects_that_join_leave_the_others_as_they_were():
    heights, present = stream(7, 120, 3)
    together, joined = Envelope(FLOORS), Envelope(FLOORS)
    together.grow(3)
    present[:50, :, 2] = False
    for step, (now, sent) in enumerate(zip(heights, present, strict=True)):
        subjects = 2 if step < 50 else 3
        joined.grow(subjects)
        together.add(step, now, sent)
        joined.add(step, now[:, :subjects], sent[:, :subjects])

    assert joined.bound().tolist() == together.bound().tolist()
    assert joined.known.tolist() == together.known.tolist()
