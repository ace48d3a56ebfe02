"""The losses that all detectors of a job look at are kept once, and each sees what it would have kept for itself."""

import numpy as np
import pytest
from torchvitals.detectors import DETECTORS
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.loss_past import KEPT, LossPast

RANKS = 4


def losses(seed, steps, together):
    """Losses of a job, and who sent one: the last rank begins with zeros."""
    rng = np.random.default_rng(seed)
    values = np.exp(rng.normal(size=(steps, RANKS)))
    values[: 2 + seed, -1] = 0.0
    return values, np.ones(values.shape, dtype=bool) if together else rng.random(values.shape) < 0.7


def said(step, value, sent, **others):
    """One step of it."""
    values = {"loss": np.where(sent, value, np.nan), **others}
    return Reading(step, 0.2 * step, values, dict.fromkeys(values, sent), masked=True)


@pytest.mark.parametrize("together", [True, False], ids=["together", "by turns"])
def test_the_newest_losses_of_each_rank_come_in_order_and_with_their_steps(together):
    values, present = losses(1, 150, together)
    past, kept = LossPast(), [[] for _ in range(RANKS)]
    for step in range(len(values)):
        past.take(said(3 * step, values[step], present[step]), RANKS)
        for rank in np.flatnonzero(present[step]):
            kept[rank].append((3 * step, float(np.float32(values[step, rank]))))
        for number, skip in ((16, 0), (32, 1), (KEPT, 0)):
            newest = past.newest(np.arange(RANKS), number, skip)
            for rank in range(RANKS):
                expected = [value for _, value in kept[rank][: len(kept[rank]) - skip][-number:]]
                np.testing.assert_allclose(newest[:, rank][~np.isnan(newest[:, rank])], expected, rtol=0.004)
    for rank in range(RANKS):
        zeros = next(place for place, (_, value) in enumerate(kept[rank]) if value)
        assert past.dates(rank, 30) == [date for date, _ in kept[rank]][-30:]
        assert int(past.known[rank]) == len(kept[rank]) - zeros


def test_a_reading_counts_once_however_many_look_at_it():
    past, reading = LossPast(), said(0, np.ones(RANKS), np.ones(RANKS, dtype=bool))
    past.take(reading, RANKS)
    past.take(reading, RANKS)
    other = LossPast()
    other.take(reading, RANKS)

    assert past.count.tolist() == other.count.tolist() == [1] * RANKS


def job(seed, steps=420):
    """A job that goes wrong in the middle, in one of several ways."""
    rng = np.random.default_rng(seed)
    values, present = losses(seed, steps, together=seed % 2 == 0)
    noise = np.exp(0.2 * rng.normal(size=(steps, RANKS)))
    values = (0.3 + 2 * np.exp(-np.arange(steps) / 60))[:, None] * noise
    middle = steps // 2
    if seed % 3 == 0:
        values[middle:] *= np.exp(0.4 * np.arange(steps - middle))[:, None].clip(0, 1e15)
    elif seed % 3 == 1:
        values[middle] *= 1e4
    else:
        values[middle:] *= -np.exp(0.03 * np.arange(steps - middle))[:, None]
    steep = np.abs(values) * noise
    for step in range(steps):
        rate = np.full(RANKS, 0.1 if step < middle else 1.0)
        yield said(step, values[step], present[step], gradient_norm=steep[step], learning_rate=rate)


@pytest.mark.parametrize("seed", range(6))
def test_detectors_say_the_same_whether_they_share_their_past_or_not(seed):
    found = []
    for shared in (None, {}):
        detectors = [make() for make in DETECTORS if make.axis == "rank"]
        said_by = []
        for reading in job(seed):
            reading.shared = shared
            said_by += [repr(finding) for each in detectors for finding in each.update(reading)]
        found.append((said_by, [each.status() for each in detectors]))

    assert found[0][0]
    assert found[0] == found[1]
