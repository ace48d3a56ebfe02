"""Validation that turns while training goes on falling."""

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.overfitting import Overfitting
from torchvitals.agent.history import History
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.overfit import Overfit

EPOCH = 10
FALLING = 0.85 ** np.arange(40)
TURNING = np.concatenate([np.linspace(1, 0.5, 10), np.linspace(0.5, 1.4, 30)])


def watch(validation: np.ndarray, training: np.ndarray) -> list[Finding]:
    detector, found = Overfit(), []
    for step in range(EPOCH * len(validation)):
        epoch = step // EPOCH
        evaluation = {"validation_loss": validation[epoch]} if step % EPOCH == EPOCH - 1 else {}
        found += detector.update(Reading.of(step, loss=training[epoch], **evaluation))
    return found


def test_the_onset_is_the_best_evaluation() -> None:
    (finding,) = watch(TURNING, FALLING)
    opinion = Overfitting().weigh(Case(findings=[finding], history=History(), facts={}, events=[]))

    assert finding.first_step in (99, 109)
    assert opinion is not None
    assert "rose from 0.5" in opinion.clues[0].text


@pytest.mark.parametrize(
    ("validation", "training"),
    [
        (np.linspace(1, 0.5, 40), FALLING),  # both get better
        (TURNING, np.full(40, 0.7)),  # training stands still: it diverges or the data changed
        (np.where(np.arange(40) == 20, 3.0, 0.5), FALLING),  # one bad evaluation
        (-TURNING, FALLING),  # no scale
        (np.concatenate([[1.0, 0.5], np.full(38, 0.7)]), FALLING),  # worse than one lucky evaluation, but level
    ],
)
def test_what_is_no_overfitting(validation: np.ndarray, training: np.ndarray) -> None:
    assert watch(validation, training) == []


def test_the_lucky_evaluation_of_a_noisy_series_is_no_turn() -> None:
    noisy = [0.5 * np.exp(0.1 * np.random.default_rng(seed).standard_normal(40)) for seed in range(200)]

    assert sum(len(watch(validation, FALLING)) for validation in noisy) <= 2


def test_evaluations_that_waver_more_must_rise_more() -> None:
    """Heavy tails of validation and training: lucky bests beside unlucky training losses are common."""
    rng = np.random.default_rng(5)
    calm = 0
    for _ in range(100):
        leaping = 0.6 * (1 + 0.5 * np.abs(rng.standard_t(2, 120)))
        calm += not watch(leaping, np.where(np.arange(120) < 20, 1.0, 0.5))
    wavering = TURNING * np.exp(0.05 * rng.standard_normal(40))

    assert calm == 100
    assert len(watch(wavering, FALLING)) == 1
