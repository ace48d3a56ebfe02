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
