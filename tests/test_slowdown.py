"""A slow job is told from a crowded machine."""

import numpy as np
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
