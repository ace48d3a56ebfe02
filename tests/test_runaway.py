"""Losses that fall without end, and those that go far below zero as they should."""

import math

import pytest
from torchvitals.detectors.runaway import Runaway
from torchvitals.signals.records import Hello, Step

HELLO = Hello(run="r", rank=0, world_size=1, pid=7)


def watch(losses, gradients=None):
    detector, found = Runaway(), []
    for step, loss in enumerate(losses):
        norm = 1.0 + abs(loss) if gradients is None else gradients[step]
        found += detector.observe(HELLO, Step(step, 10.0, {"loss": loss, "tripwire_norm": norm}))
    return [(finding.first_step, finding.evidence["signal"]) for finding in found]


def subtracted(step):
    """As an autoencoder whose divergence is subtracted: 8,000, zero after 25 steps, -3e11 after 900."""
    return 8e3 * (1 - step / 25) - max(step - 25, 0) ** 3.7


def test_a_divergence_that_is_subtracted():
    assert watch([subtracted(step) for step in range(900)]) == [(25, "no_minimum")]


@pytest.mark.parametrize(
    ("losses", "gradients"),
    [
        ([3000.0 * (0.9 - math.log1p(step)) for step in range(2000)], None),
        ([1.0 - 0.5 * step for step in range(4000)], [1.0] * 4000),
        ([math.sin(step) * 1.2**step for step in range(200)], None),
        ([1e-5 - 0.01 * max(step - 20, 0) ** 2 for step in range(500)], None),
        ([2.0 * 0.99**step for step in range(2000)], None),
    ],
    ids=["a likelihood", "an actor's returns", "both signs", "a critic's first values", "ordinary"],
)
def test_what_may_go_far_below_zero(losses, gradients):
    assert watch(losses, gradients) == []
