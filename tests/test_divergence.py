"""What was learnt and lost, and gradients that nobody clears."""

import pytest
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.divergence import Divergence, UnclearedGradients


def watch(losses: list[float], rates: list[float] | None = None) -> list[Finding]:
    detector, found = Divergence(), []
    for step, loss in enumerate(losses):
        rate = 0.1 if rates is None else rates[step]
        found += detector.update(Reading.of(step, loss=loss, learning_rate=rate))
    return found


LEARNING = [2.3 * 0.98**step for step in range(160)]


def test_a_loss_that_settles_far_above_its_start() -> None:
    found = watch([*LEARNING, *[9.0] * 80])

    assert [(f.first_step, f.severity) for f in found] == [(160, "error")]


def test_a_return_to_chance_counts_beyond_the_rates_that_were_learnt_with() -> None:
    losses = [*LEARNING, *[2.3] * 100]

    assert [f.first_step for f in watch(losses, [0.1] * 160 + [3.0] * 100)] == [160]
    assert watch(losses) == []


def test_an_overshoot_that_comes_to_rest_far_up_is_no_new_start() -> None:
    rates = [0.1] * 157 + [10.0] * 300  # the rate jumps in the last steps of a block whose median is still low
    overshoot = [*LEARNING[:157], *[5.0] * 3, *[4.0] * 16]

    assert [(f.first_step, f.step) for f in watch([*overshoot, *[2.25] * 100], rates)] == [(157, 239)]
    rates = [0.1] * 157 + [2.0] * 300
    assert watch([*overshoot, *[2.25 * 0.997**step for step in range(250)]], rates) == []


@pytest.mark.parametrize(("height", "rate", "expected"), [(12.0, 2.0, [160]), (5.0, 2.0, []), (5.0, 10.0, [160])])
def test_a_leap_beyond_all_that_a_fresh_net_does_is_not_undone_by_a_slow_return(height, rate, expected) -> None:
    """As a schedule that multiplies by 300 where it should divide: from 1 to 9, and in 140 steps back to 2."""
    rates = [0.1] * 160 + [rate] * 200
    back = [*[height] * 16, *[2.25 * 0.997**step for step in range(184)]]

    assert [f.first_step for f in watch([*LEARNING, *back], rates)] == expected


@pytest.mark.parametrize(
    ("rate", "lost", "expected"),
    [(0.6, 2.6, []), (60.0, 2.6, [160]), (60.0, 2.1, [])],
    ids=["a jump that may be meant", "a wild one", "learnt again"],
)
def test_little_that_was_learnt_counts_when_a_wild_jump_lost_it(rate, lost, expected) -> None:
    """As a language model that had gone from 2.8 to 2.1 by then."""
    learnt = [2.8 - 0.7 * min(step / 100, 1.0) for step in range(160)]
    losses = [*learnt, *[12.0] * 8, *[4.0] * 16, *[lost] * 100]

    assert [f.first_step for f in watch(losses, [0.1] * 160 + [rate] * 124)] == expected


def test_a_rate_that_is_told_when_it_changes_holds_until_then() -> None:
    detector, found = Divergence(), []
    for step, loss in enumerate([*LEARNING, *[2.3] * 100]):
        rate = {"learning_rate": 3.0 if step else 0.1} if step in (0, 160) else {}
        found += detector.update(Reading.of(step, loss=loss, **rate))

    assert [f.first_step for f in found] == [160]


def test_a_new_task_is_learnt_again() -> None:
    assert watch([*LEARNING, *[8.0 * 0.98**step for step in range(160)]]) == []


def test_growth_by_design_is_slow() -> None:
    assert watch([*LEARNING, *[0.1 * 1.01**step for step in range(600)]]) == []


def test_a_loss_whose_weight_is_zero_at_first_begins_later() -> None:
    zeros = [0.0] * 100

    assert watch([*zeros, *[1.0] * 160]) == []
    assert [f.first_step for f in watch([*zeros, *LEARNING, *[9.0] * 80])] == [260]


def test_a_loss_below_zero_has_no_start() -> None:
    detector = Divergence()
    for step in range(100):
        detector.update(Reading.of(step, loss=-1.0))

    assert detector.status().state == "not_checked"


@pytest.mark.parametrize("resets", [[1.0] * 40, [0.0, 0.0, 0.0, 1.0] * 10])
def test_gradients_cleared_now_and_then_are_somebodys_style(resets: list[float]) -> None:
    detector = UnclearedGradients()

    assert [f for s, r in enumerate(resets) for f in detector.update(Reading.of(s, gradients_reset=r))] == []


def test_gradients_never_cleared_are_told_once_and_early() -> None:
    detector = UnclearedGradients()
    readings = [Reading.of(step, gradients_reset=0.0, gradient_norm=1.0) for step in range(1, 60)]
    found = [finding for reading in readings for finding in detector.update(reading)]

    assert [(f.kind, f.first_step, f.step, f.severity) for f in found] == [("divergence", 0, 8, "warning")]


def test_the_second_of_two_optimizers_is_told_though_the_first_has_taken_the_backward_pass() -> None:
    detector, found = UnclearedGradients(), []
    for step in range(20):
        found += detector.update(Reading.of(step, gradients_reset=0.0, backward_passes=0.0, tripwire_norm=1.0))

    assert [f.first_step for f in found] == [0]
