"""Losses whose sign was turned, and losses that go below zero as they should."""

import numpy as np
import pytest
from torchvitals.detectors.bottomless import Bottomless
from torchvitals.detectors.detector import Finding, Reading

STEPS = np.arange(400)
NOISE = 1 + 0.2 * np.random.default_rng(0).normal(size=400)
TURNED = np.where(STEPS < 100, NOISE, -NOISE * (1 + ((STEPS - 100) / 8.0) ** 2))


def watch(losses: np.ndarray, gradients: np.ndarray | None = None) -> list[Finding]:
    detector = Bottomless()
    gradients = np.abs(losses) if gradients is None else gradients
    return [
        finding
        for step, (loss, norm) in enumerate(zip(losses, gradients, strict=True))
        for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=1.0, gradient_norm_unclipped=norm))
    ]


def test_a_turned_loss_that_runs_away_under_clipping_is_told_once() -> None:
    found = watch(TURNED)

    assert [(f.kind, f.first_step) for f in found] == [("divergence", 100)]
    assert found[0].step <= 160


@pytest.mark.parametrize(
    ("losses", "gradients"),
    [
        (1.0 - STEPS / 20.0, 1.0 + STEPS / 4.0),  # comes down through zero
        (np.where(STEPS < 100, NOISE, -NOISE), None),  # another objective, which stays where it is
        (np.where(STEPS < 100, NOISE, -np.log(np.maximum(STEPS - 96.0, 2.0))), 1.0 + STEPS),  # a likelihood
        (TURNED, np.ones(400)),  # large numbers, and gradients as before
        (NOISE - 1.0, None),  # around zero from the start
        (np.abs(TURNED), None),  # upwards is for others to tell
    ],
)
def test_what_may_go_below_zero(losses: np.ndarray, gradients: np.ndarray | None) -> None:
    assert watch(losses, gradients) == []
