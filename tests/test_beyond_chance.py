"""Classifiers that climb to many times the cost of a guess, and those that only pass there."""

import numpy as np
import pytest
from torchvitals.detectors.beyond_chance import BeyondChance
from torchvitals.detectors.wild_start import WildStart
from torchvitals.signals.records import Event, Hello, Step

CHANCE = float(np.log(10))


def told(losses, first=2.35, optimizers=(0,)):
    detector, hello, found = BeyondChance(), Hello(run="r", rank=1, world_size=2, pid=7), []
    detector.observe(hello, Event(1.0, 0, "first_loss", {"classes": 10, "chance": CHANCE, "loss": first}))
    for step, loss in enumerate(losses):
        record = Step(step, 1.0, {"loss": float(loss)}, optimizer=optimizers[step % len(optimizers)])
        found += detector.observe(hello, record)
    return found


def climbing(steps=240, rate=1.04, seed=0):
    noise = np.exp(0.3 * np.random.default_rng(seed).standard_normal(steps))
    course = np.minimum(2.35 * rate ** np.maximum(np.arange(steps) - 20, 0), 500.0) * noise
    course[0] = 2.35
    return course


def test_a_slow_climb_is_told_once_of_no_rank():
    (finding,) = told(climbing())

    assert (finding.kind, finding.rank, finding.evidence["signal"]) == ("divergence", None, "beyond_chance")
    assert 10 <= finding.first_step <= 40
    assert finding.step < 160


@pytest.mark.parametrize(
    "healthy",
    [
        {"losses": np.linspace(2.35, 0.1, 400)},
        {"losses": [2.35, *([40.0, 1.4] * 200)]},  # a regression and a classification by turns
        {"losses": [2.35] * 50 + [3 * CHANCE] * 200},  # sure, and shown another task
        {"losses": [2.35] * 50 + [8 * CHANCE * 0.98**step for step in range(200)]},  # which it learns
        {"losses": [2.35] * 50 + [20 * CHANCE] * 40 + [1.0] * 100},  # an overshoot
        {"losses": climbing() * 40},  # the loss is more than the cross-entropy in it
        {"losses": climbing(), "first": 40.0},
        {"losses": climbing(), "optimizers": (0, 1)},
    ],
    ids=["learns", "by turns", "worse", "learns anew", "overshoots", "a sum", "wild", "a game"],
)
def test_what_is_learnt_passes_or_is_something_else_is_silent(healthy):
    assert told(**healthy) == []


def wild(losses, chance=CHANCE, first=None):
    detector, hello, found = WildStart(), Hello(run="r", rank=1, world_size=2, pid=7), []
    start = {"classes": 10, "chance": chance, "loss": losses[0] if first is None else first}
    found += detector.observe(hello, Event(1.0, 0, "first_loss", start))
    for step, loss in enumerate(losses):
        found += detector.observe(hello, Step(step, 1.0, {"loss": float(loss)}))
    return [(finding.first_step, finding.step) for finding in found + detector.finish([hello])]


FALLING = 70 * np.exp(-np.arange(300) / 20) + 2.0


@pytest.mark.parametrize(
    ("losses", "told"),
    [
        (FALLING, []),
        (FALLING[:300] + 4.0, [(0, 256)]),  # it falls, and stays above
        ([70.0] * 300, [(0, 64)]),
        (FALLING * 10, [(0, 0)]),
        (FALLING[:30], [(0, 29)]),
        ([70.0, 60.0, np.nan], [(0, 2)]),
    ],
    ids=["mended", "half mended", "wild for good", "far beyond", "ended too soon", "not finite"],
)
def test_a_wild_start_that_training_mends_is_none(losses, told):
    assert wild(losses) == told


def test_a_wild_start_of_one_loss_among_several_is_told_at_once():
    assert wild(FALLING, first=40.0) == [(0, 0)]
