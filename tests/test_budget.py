"""The budget holds: whatever steps and work cost, the share spent on optional work stays where it was set."""

from itertools import pairwise

import pytest
from torchvitals.hooks.budget import Budget


def spent(step_seconds: float, cost: float, steps: int, **settings: float) -> float:
    """Share of step time that sampled work took in a job of ``steps`` equal steps."""
    budget = Budget(allowance=0.0, **settings)  # type: ignore[arg-type]
    total = 0.0
    for step in range(steps):
        now = cost if budget.wants("sample", step) else 0.0
        if now:
            budget.done("sample", step, now)
        total += now
        budget.close_step(step_seconds, now)
    return total / (steps * step_seconds)


@pytest.mark.parametrize("step_seconds", [0.01, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("cost", [1e-4, 1e-3, 1e-2])
def test_the_share_is_held(step_seconds: float, cost: float) -> None:
    floor_share = cost / 100 / step_seconds

    assert spent(step_seconds, cost, 2000, overhead=0.01) <= max(0.0105, 1.05 * floor_share)


def test_long_steps_are_sampled_as_often_as_is_useful() -> None:
    budget = Budget(allowance=0.0)
    sampled = []
    for step in range(1000):
        if budget.wants("sample", step):
            budget.done("sample", step, 1e-3)
            sampled.append(step)
        budget.close_step(1.0, 1e-3)

    assert max(later - earlier for earlier, later in pairwise(sampled)) <= 10


def test_two_optimizers_do_not_take_each_others_turn() -> None:
    budget = Budget(allowance=0.0)
    for optimizer, steps in ((0, range(500)), (1, range(500))):
        ran = [
            step
            for step in steps
            if budget.wants("norm", step, optimizer) and not budget.done("norm", step, 1.0, optimizer)
        ]  # type: ignore[func-returns-value]

        assert ran == list(range(0, 500, 10))


def test_debt_is_bounded_so_that_one_slow_dump_does_not_blind_the_job() -> None:
    budget = Budget()
    budget.close_step(0.1, 3600.0)
    for _ in range(1010):
        budget.close_step(0.1, 0.0)

    assert not budget.in_debt


@pytest.mark.parametrize(("cost", "apart"), [(1e-3, 2.0), (1e-2, 5.0), (1.0, 10.0)])
def test_in_debt_a_look_is_as_rare_as_its_price_asks_and_never_rarer_than_ten_seconds(
    cost: float, apart: float
) -> None:
    budget, ran = Budget(allowance=0.0), []
    for step in range(10_000):
        budget.close_step(0.005, 1e-3)
        if budget.wants("activations", step):
            budget.done("activations", step, cost)
            ran.append(0.005 * step)

    assert budget.in_debt
    assert [later - earlier for earlier, later in pairwise(ran)][1:] == pytest.approx(
        [apart] * (len(ran) - 2), abs=0.01
    )
