"""A slow job is told from a crowded machine."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.slowdown import Slowdown


def found(load: float | None) -> list[int]:
    """Steps of 10 ms that become 300 ms at step 300, on a machine whose load is told every tenth step."""
    detector = Slowdown()
    rng = np.random.default_rng(0)
    findings = []
    for step in range(600):
        values = {"step_seconds": [(0.01 if step < 300 else 0.3) * rng.uniform(0.9, 1.1)]}
        if load is not None and step % 10 == 0:
            values["machine_load"] = [load if step >= 300 else 0.5]
        findings += detector.update(Reading.of(step, **values))
    return [finding.first_step for finding in findings]


def test_a_job_that_slows_down_is_found_with_and_without_a_known_load() -> None:
    assert found(None) == found(0.9) == [300]


def test_a_crowded_machine_is_not_the_jobs_fault() -> None:
    assert found(6.0) == []


def test_on_a_crowded_machine_the_job_s_own_passes_are_the_clock() -> None:
    """The same work takes twice as long there: a step that takes ten times as long does so for its own reasons."""
    expected = {("other", 10.0): [300], ("both", 10.0): []}
    for (what, factor), steps in expected.items():
        detector, rng, findings = Slowdown(), np.random.default_rng(0), []
        for step in range(700):
            late = step >= 300
            work = 0.01 * (factor if late and what == "both" else 2.0 if late else 1.0) * rng.uniform(0.9, 1.1)
            rest = 0.02 * (factor if late else 1.0) * rng.uniform(0.9, 1.1)
            findings += detector.update(
                Reading.of(
                    step,
                    step_seconds=[work + rest],
                    forward_seconds=[work / 3],
                    backward_seconds=[work * 2 / 3],
                    machine_load=[6.0 if late else 0.5],
                )
            )
        assert [finding.first_step for finding in findings] == steps


@pytest.mark.parametrize(
    ("past", "factor", "steps"), [("uneven", 10.0, [220]), ("uneven", 3.0, []), ("wild", 10.0, [])]
)
def test_a_leap_out_of_a_short_past_needs_no_long_one(past: str, factor: float, steps: list[int]) -> None:
    """Ten blocks whose levels have memory prove nothing by themselves, and need not where the step is ten times."""
    detector, rng, findings = Slowdown(), np.random.default_rng(2), []
    spread = 0.1 if past == "uneven" else 0.45
    levels = np.exp(spread * np.cumsum(rng.choice([-1.0, 1.0], size=22)).clip(-1.5, 1.5))
    for step in range(440):
        seconds = 0.02 * levels[step // 20] * rng.uniform(0.95, 1.05) * (factor if step >= 220 else 1.0)
        findings += detector.update(Reading.of(step, step_seconds=[seconds]))
    assert [finding.first_step for finding in findings] == steps


def light(after: float, passes: float, *, past: str = "even", steps: int = 1300, load: float = 3.0) -> list[int]:
    """Steps of 3 ms that take ``after`` seconds from step 900 on; of 25 one is timed, as of steps so short.

    ``passes`` is how many times longer the passes take from then on; ``past``: how the first 200 steps were.
    """
    detector, rng, findings = Slowdown(), np.random.default_rng(1), []
    for step in range(steps):
        late = step >= 900
        seconds = after if late else 0.01 if past == "fell" and step < 100 else 0.007 if step < 200 else 0.003
        values = {"step_seconds": [seconds * rng.lognormal(0.0, 0.1)]}
        if step < 300 or step % 25 == 0:
            work = (passes if late else 1.0) * rng.lognormal(0.0, 0.1)
            values |= {"forward_seconds": [0.0007 * work], "backward_seconds": [0.0012 * work]}
        if step % 50 == 0:
            values["machine_load"] = [load]
        findings += detector.update(Reading.of(step, **values))
    return [finding.first_step for finding in findings]


def test_passes_that_are_timed_seldom_are_a_clock_as_well() -> None:
    """No block of 20 steps has three timed passes; those of several blocks are waited for."""
    assert light(0.033, 1.3) == [900]
    assert light(0.033, 12.0) == []


def test_a_crowded_machine_without_timed_passes_is_waited_for_and_given_up() -> None:
    detector, rng, findings = Slowdown(), np.random.default_rng(1), []
    for step in range(1500):
        seconds = 0.05 if step >= 300 else 0.01
        values = {"step_seconds": [seconds * rng.uniform(0.9, 1.1)]}
        values["machine_load"] = [1.4 if step >= 1200 else 3.0]  # it goes, and what has been usual for long goes on
        findings += detector.update(Reading.of(step, **values))
    assert findings == []


@pytest.mark.parametrize(("after", "steps"), [(0.034, [900]), (0.0045, [])])
def test_a_past_that_fell_is_as_good_as_one_that_was_always_even(after: float, steps: list[int]) -> None:
    """Three times as slow at first, while all steps were watched; the newest blocks say how even steps are."""
    assert light(after, 1.0, past="fell", load=1.0) == steps


def collated(seconds: float, passes: float, *, until: int = 900) -> list[int]:
    """Steps of 2.6 ms with a past that has memory, which take ``seconds`` from step 400 on; all passes are timed."""
    detector, rng, findings = Slowdown(), np.random.default_rng(3), []
    for step in range(900):
        usual = 0.0041 if step < 40 or 100 <= step < 120 else 0.0026 if step < 380 else 0.003
        late = 400 <= step < until
        work = (passes if late else 1.0) * rng.lognormal(0.0, 0.1)
        findings += detector.update(
            Reading.of(
                step,
                step_seconds=[(seconds if late else usual) * rng.lognormal(0.0, 0.1)],
                forward_seconds=[0.0002 * work],
                backward_seconds=[0.00035 * work],
                machine_load=[3.0 if step % 20 else 1.0],
            )
        )
    return [finding.first_step for finding in findings]


def test_passes_that_take_what_they_took_vouch_for_the_machine() -> None:
    assert collated(0.0092, 1.1) == [400]


@pytest.mark.parametrize(
    ("seconds", "passes", "until"),
    [(0.0092, 3.5, 900), (0.005, 1.1, 900), (0.0092, 1.1, 600)],
    ids=["crowded", "less", "passing"],
)
def test_what_the_passes_do_not_vouch_for_is_not_told(seconds: float, passes: float, until: int) -> None:
    assert collated(seconds, passes, until=until) == []
