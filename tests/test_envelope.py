"""The envelope against one that keeps everything and looks at all of it each time."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.envelope import UNKNOWN, Crest, Envelope
from torchvitals.detectors.loss_past import LossPast

LAG, BLOCK, EARLY = 32, 16, 8


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


class SlowCrest:
    """The same in blocks of eight."""

    def __init__(self):
        self.heights = []
        self.first = UNKNOWN

    floor = np.log10(0.1)
    steps = property(lambda self: [])

    def bound(self):
        blocks = max(0, (len(self.heights) - 1) // EARLY - LAG // EARLY)
        return max([self.first, *self.heights[: blocks * EARLY]])


def stream(seed, steps, subjects):
    """Losses that wander and leap, what is not finite among them, zeros before some, and who sent them."""
    rng = np.random.default_rng(seed)
    heights = np.cumsum(rng.normal(scale=0.2, size=(steps, subjects)), axis=0)
    heights[rng.random(heights.shape) < 0.02] += 4.0
    losses = np.float64(np.float32(10.0**heights))
    for odd in (np.inf, np.nan):
        losses[rng.random(heights.shape) < 0.02] = odd
    losses[: 3 * (seed % 2), 1:] = 0.0
    return losses, rng.random(heights.shape) < np.array([1.0, 0.9, 0.5])[:subjects]


def height_of(loss):
    """As both see it."""
    return float(np.float32(np.log10(loss)))


def readings(losses, present):
    """One after the other."""
    for step, (loss, sent) in enumerate(zip(losses, present, strict=True)):
        yield Reading(step, 0.0, {"loss": np.where(sent, loss, np.nan)}, {"loss": sent}, masked=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("together", [True, False], ids=["together", "each for itself"])
def test_bounds_are_those_of_an_envelope_that_keeps_everything(seed, together):
    losses, present = stream(seed, 400, 3)
    if together:
        losses, present = np.nan_to_num(losses, nan=1.0, posinf=1e3), np.ones_like(present)
    tolerance = np.array([0.3, 2.0, 4.0])
    envelope, past = Envelope(), LossPast()
    slow = [SlowEnvelope(0.1, phase) for phase in range(3)]
    envelope.grow(3)
    for reading in readings(losses, present):
        past.take(reading, 3)
        envelope.add(past, tolerance)
        for subject in np.flatnonzero(reading.present["loss"] & np.isfinite(reading.values["loss"])):
            if reading.values["loss"][subject] > 0:
                slow[subject].add(reading.step, height_of(reading.values["loss"][subject]), tolerance[subject])
        np.testing.assert_allclose(envelope.bound, [one.bound() for one in slow], rtol=1e-3, atol=0.002)
        np.testing.assert_allclose(
            envelope.recent_bound(past.known), [one.recent_bound() for one in slow], rtol=1e-3, atol=0.002
        )


@pytest.mark.parametrize("together", [True, False], ids=["together", "each for itself"])
def test_a_crest_holds_back_whole_blocks(together):
    losses, present = stream(2, 300, 3)
    losses = np.nan_to_num(losses, nan=1.0, posinf=1e3)
    present |= together
    crest, slow = Crest(), [SlowCrest() for _ in range(3)]
    crest.grow(3)
    for reading in readings(losses, present):
        np.testing.assert_allclose(crest.bound, [one.bound() for one in slow], rtol=1e-3, atol=0.002)
        crest.add(np.log10(losses[reading.step]), present[reading.step])
        for subject in np.flatnonzero(present[reading.step]):
            if len(slow[subject].heights) < LAG:
                SlowEnvelope.add(slow[subject], reading.step, height_of(losses[reading.step, subject]), 2.0)
            else:
                slow[subject].heights.append(height_of(losses[reading.step, subject]))


def test_subjects_that_join_leave_the_others_as_they_were():
    losses, present = stream(8, 120, 3)
    present[:50, 2] = False
    together, joined = (Envelope(), LossPast()), (Envelope(), LossPast())
    for step, reading in enumerate(readings(losses, present)):
        for (envelope, past), subjects in ((together, 3), (joined, 2 if step < 50 else 3)):
            cut = {"loss": reading.values["loss"][:subjects]}
            part = Reading(step, 0.0, cut, {"loss": reading.present["loss"][:subjects]}, masked=True)
            envelope.grow(subjects)
            past.take(part, subjects)
            envelope.add(past)

    assert joined[0].bound.tolist() == together[0].bound.tolist()
    assert joined[1].known.tolist() == together[1].known.tolist()
