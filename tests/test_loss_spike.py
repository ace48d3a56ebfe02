"""Single steps that stand out of the run's own noise and pass."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.loss_spike import LossSpike


def watch(losses: list[float]) -> list[Finding]:
    detector = LossSpike()
    return [
        finding
        for step, loss in enumerate(losses)
        for finding in detector.update(Reading.of(step, loss=loss, gradient_norm=abs(loss)))
    ]


def ordinary(steps: int, seed: int = 0) -> list[float]:
    return np.exp(0.2 * np.random.default_rng(seed).standard_normal(steps)).tolist()


def test_a_bad_batch_is_told_when_it_is_over() -> None:
    losses = ordinary(200)
    losses[150] = 900.0

    assert [(f.first_step, f.step, f.severity) for f in watch(losses)] == [(150, 151, "warning")]


def test_what_does_not_recover_is_left_to_explosion() -> None:
    assert watch([*ordinary(100), *[900.0] * 30]) == []


def test_pareto_tails_are_the_runs_own_noise() -> None:
    alarms = [watch((np.random.default_rng(seed).pareto(1.5, 5000) + 1).tolist()) for seed in range(5)]

    assert sum(map(len, alarms)) == 0


def test_a_hard_sample_met_late_is_no_worse_than_an_untrained_model() -> None:
    losses = [2.3 * 0.95**step for step in range(200)]
    losses[180] = 6.0

    assert watch(losses) == []


def test_a_norm_that_is_sampled_elsewhere_is_replaced_by_the_trip_wires() -> None:
    detector, losses = LossSpike(), ordinary(200)
    losses[150] = 900.0
    found = []
    for step, loss in enumerate(losses):
        sampled = {"gradient_norm": loss} if step % 20 == 3 else {}
        found += detector.update(Reading.of(step, loss=loss, tripwire_norm=0.1 * loss, **sampled))

    assert [f.first_step for f in found] == [150]


@pytest.mark.parametrize(("leap", "expected"), [(1e8, [(17, 18)]), (1e3, [])])
def test_a_loss_far_beyond_anything_needs_fewer_before_it(leap, expected):
    detector, told = LossSpike(), []
    for step in range(40):
        loss = 700.0 / (1 + step) * (leap if step == 17 else 1 + 0.2 * (step % 3))
        told += detector.update(Reading.of(step, loss=loss, gradient_norm=loss))
    assert [(f.first_step, f.step) for f in told] == expected


def confident(steps: int, seed: int = 0) -> list[float]:
    """A net that is nearly always right: losses of 0.001 to 1 beside each other."""
    return np.minimum(10 ** np.random.default_rng(seed).uniform(-3, 0, steps), 1.0).tolist()


@pytest.mark.parametrize(
    ("loss", "largest", "expected"),
    [
        (60.0, 255.0, [(150, 152)]),
        (60.0, 3.0, []),  # within twice of what its own losses leap by
        (0.7, 255.0, []),  # nothing came of it
        (5.0, 255.0, []),  # no worse than a harder task
    ],
)
def test_inputs_out_of_all_proportion_make_a_smaller_leap_certain(loss, largest, expected) -> None:
    detector, found = LossSpike(), []
    for step, value in enumerate(confident(200)):
        bad = step in (150, 151)
        looked = {"input_absmax": largest if bad else 1.0} if bad or step % 5 == 0 else {}
        now = loss if bad else value
        found += detector.update(Reading.of(step, loss=now, gradient_norm=now, **looked))

    assert [(f.first_step, f.step) for f in found] == expected
