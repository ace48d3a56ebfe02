"""Growth beyond all proportion, told from spikes, noise, curricula and warm restarts."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.explosion import Explosion


def watch(losses: list[float], norms: list[float] | None = None, **signals: list[float]) -> list[Finding]:
    """The findings of one run; gradients as large as the loss unless told otherwise, 32 rows to a batch."""
    detector, found = Explosion(), []
    for step, loss in enumerate(losses):
        extra = {name: values[step] for name, values in signals.items()}
        norm = abs(loss) if norms is None else norms[step]
        found += detector.update(Reading.of(step, loss=loss, gradient_norm=norm, **({"batch_items": 32} | extra)))
    return found


def falling(steps: int, seed: int = 0, noise: float = 0.1) -> list[float]:
    random = np.random.default_rng(seed)
    return [float(2.3 * 0.98**step * np.exp(noise * random.standard_normal())) for step in range(steps)]


def test_a_blow_up_from_the_first_updates_is_certain_before_it_overflows() -> None:
    found = watch([2.3, 4.0, 130.0, 5e5, 3e8, 2e14, 3e18, float("nan")])

    assert [(f.first_step, f.step) for f in found] == [(2, 3)]


def test_a_blow_up_after_a_healthy_past_names_its_first_step() -> None:
    found = watch([*falling(60), 48.0, 4.7e3, 6.8e7])

    assert [(f.kind, f.first_step, f.severity) for f in found] == [("explosion", 60, "critical")]
    assert found[0].step <= 62


def test_one_high_value_before_a_non_finite_one_is_growth() -> None:
    found = watch([*falling(60), 900.0, float("inf")])

    assert [(f.first_step, f.step) for f in found] == [(60, 61)]


def test_non_finite_out_of_healthy_values_is_left_to_another_detector() -> None:
    assert watch([*falling(60), *[float("nan")] * 30]) == []


def test_growth_that_stays_finite_and_stays() -> None:
    found = watch([*falling(60), *[120.0 + step for step in range(40)]])

    assert [f.first_step for f in found] == [60]


def test_a_spike_that_recovers_is_no_explosion() -> None:
    assert watch([*falling(60), 2000.0, *falling(120)[60:]]) == []


def test_a_spike_after_which_nothing_comes_back_is() -> None:
    found = watch([*falling(80), 2000.0, *[5.0] * 40])

    assert [f.first_step for f in found] == [80]


def test_gradient_spikes_alone_are_the_business_of_a_recurrent_net() -> None:
    losses = falling(300)
    norms = [1e5 if step % 40 < 8 and step > 50 else 1.0 for step in range(300)]

    assert watch(losses, norms) == []


def test_a_doubled_or_tripled_loss_is_a_curriculum() -> None:
    assert watch([*falling(100), *[7.0 * 0.99**step for step in range(100)]]) == []


def test_a_return_to_the_untrained_loss_counts_after_a_jump_of_the_rate() -> None:
    losses = [*falling(200), *[2.2] * 30]
    high = [0.1 if step < 199 else 10.0 for step in range(len(losses))]

    assert [f.first_step for f in watch(losses, learning_rate=high)] == [200]
    assert watch(losses, learning_rate=[0.1] * len(losses)) == []


def test_skipped_attempts_of_the_loss_scaler_say_nothing() -> None:
    losses = [*falling(60), *[1e6] * 10, *falling(80)[70:]]
    skipped = [1.0 if 60 <= step < 70 else 0.0 for step in range(len(losses))]

    assert watch(losses, skipped_steps=skipped) == []


@pytest.mark.parametrize("seed", range(5))
def test_heavy_tailed_losses_of_single_rows_are_noise(seed: int) -> None:
    random = np.random.default_rng(seed)
    losses = (random.standard_t(2, 3000) ** 2).tolist()

    assert watch(losses, [loss**0.5 for loss in losses], batch_items=[1.0] * 3000) == []


def test_losses_around_zero_have_no_scale() -> None:
    random = np.random.default_rng(1)

    assert watch((0.01 * random.standard_normal(500)).tolist() + random.standard_normal(500).tolist()) == []


def test_ranks_are_judged_each_on_its_own_and_may_join_late() -> None:
    detector, found = Explosion(), []
    for step, loss in enumerate([*falling(60), 48.0, 4.7e3, 6.8e7]):
        values = [1.0, loss] if step < 30 else [1.0, loss, 1.0]
        found += detector.update(Reading.of(step, loss=values, gradient_norm=values, batch_items=[32] * len(values)))

    assert [f.subject for f in found] == [1]


def test_status_says_what_it_has_not_seen() -> None:
    detector = Explosion()

    assert detector.status().state == "not_checked"
    detector.update(Reading.of(0, loss=1.0))
    assert detector.status().state == "warming_up"


FIRST_REWARDS = [
    (-0.071, 0.17, 0.027), (0.13, 0.36, 0.076), (1.0, 1.4, 0.21), (-0.16, 0.47, 0.082), (-0.12, 0.29, 0.041),
    (30, 12, 1.4), (11, 6.8, 0.9), (4.4, 4.1, 0.48), (16, 8.6, 1.1), (20, 10, 1.3), (20, 10, 1.3), (24, 12, 1.6),
    (33, 15, 2.3), (2.6, 3.1, 0.42), (21, 12, 1.6), (13, 9.4, 1.2), (17, 10, 1.6), (24, 14, 2.0), (32, 16, 2.5),
    (28, 15, 2.2), (25, 14, 2.2), (33, 17, 2.8),
]  # fmt: skip
"""Loss, gradient norm and trip-wire of an actor with its critic, recorded."""


def test_an_agent_that_meets_its_first_rewards_does_not_explode():
    """A loss around zero has no scale, and before the first reward it is smaller than it will ever be again."""
    well = FIRST_REWARDS + 6 * FIRST_REWARDS[8:]
    grows = [(20.0 * 1.3**step, 10.0 * 1.3**step, 1.3**step) for step in range(60)]

    def found(steps):
        detector = Explosion()
        return [
            finding.first_step
            for step, (loss, norm, small) in enumerate(steps)
            for finding in detector.update(
                Reading.of(step, loss=loss, gradient_norm=norm, tripwire_norm=small, batch_items=20.0)
            )
        ]

    assert found(well) == []
    assert len(found(well + grows)) == 1


def test_a_task_that_begins_after_losses_of_exactly_zero_has_nothing_to_be_measured_by() -> None:
    assert watch([0.0] * 8 + falling(60)) == []
    assert [f.first_step for f in watch([0.0] * 8 + falling(60) + [90.0, 3e3, 1e5, 1e7])] == [68]


def test_an_agent_that_meets_its_first_rewards_has_no_scale_yet() -> None:
    random = np.random.default_rng(0)
    rewards = [float(x) for x in random.exponential(12.0, 60)]
    losses = [0.08, 0.04, 7.3, 3.0, 0.01, -0.007, 13.0, 0.02, -0.01, -0.002, *rewards]

    assert watch(losses, [abs(loss) ** 0.5 for loss in losses]) == []


@pytest.mark.parametrize(("between", "told"), [(1.4, False), (5.0, True)])
def test_tasks_by_turns_of_which_the_first_has_the_smallest_loss(between: float, told: bool) -> None:
    """A head that is trained now and then came first, then a regression and a classification by turns."""
    random = np.random.default_rng(0)
    turns = [(20.0 if step % 2 else between) * float(np.exp(0.03 * random.standard_normal())) for step in range(1, 60)]

    assert bool(watch([0.78, *turns])) is told
