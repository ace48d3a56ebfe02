"""Losses that stay at chance."""

import math

import numpy as np
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.plateau import Plateau


def watch(losses: list[float], rates: list[float] | None = None) -> list[Finding]:
    detector, found = Plateau(), []
    for step, loss in enumerate(losses):
        rate = 0.1 if rates is None else rates[step]
        found += detector.update(Reading.of(step, loss=loss, learning_rate=rate))
    return found


def around(level: float, steps: int, noise: float) -> list[float]:
    return (level + noise * np.random.default_rng(0).standard_normal(steps)).tolist()


def test_shuffled_labels_of_ten_classes() -> None:
    found = watch(around(math.log(10), 400, 0.01))

    assert [(f.evidence["classes"], f.severity) for f in found] == [(10, "warning")]


def test_a_language_model_that_never_leaves_its_start() -> None:
    assert len(watch(around(math.log(50257), 400, 0.02))) == 1


def test_fine_tuning_near_such_a_level_varies_from_batch_to_batch() -> None:
    assert watch(around(math.log(10), 1000, 0.15)) == []


def test_a_loss_that_came_down_to_the_level_has_learnt() -> None:
    losses = np.linspace(3.3, math.log(8), 100).tolist() + around(math.log(8), 400, 0.01)

    assert watch(losses) == []


def test_an_adversarial_balance_is_no_plateau() -> None:
    assert watch(around(math.log(2), 1000, 0.001)) == []
    assert watch(around(math.log(4), 1000, 0.001)) == []


def test_a_rate_that_is_still_tiny_is_not_held_against_a_run() -> None:
    losses = around(math.log(10), 230, 0.01) + [math.log(10) * 0.98**step for step in range(200)]

    assert watch(losses, [0.1] + [1e-4] * 179 + [0.1] * 250) == []


def test_slow_learning_is_no_standstill() -> None:
    noise = np.random.default_rng(0).standard_normal(2000)
    steps = np.arange(2000)
    warming_up = 10.9 - 1.3 * steps / 2000 + 0.06 * noise
    weak_signal = 1.07 + 0.03 * np.exp(-steps / 500) + 0.012 * noise

    assert watch(warming_up.tolist(), (6e-4 * (steps + 1) / 2000).tolist()) == []
    assert watch(weak_signal.tolist()) == []
