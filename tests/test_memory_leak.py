"""Memory that was asked for at once and is touched bit by bit is no leak."""

import numpy as np
import pytest
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.memory_leak import MemoryLeak


def found(resident: float, mapped: float | None) -> list[int]:
    """First steps of the findings when resident memory and the address space grow by so many bytes per step."""
    detector, findings = MemoryLeak(), []
    for step in range(600):
        values = {"rss_bytes": [3e8 + resident * step]}
        if mapped is not None:
            values["mapped_bytes"] = [9e9 + mapped * step + 1.6e8 * (step > 100)]  # and a thread's arena, once
        findings += detector.update(Reading.of(step, **values))
    return [finding.first_step for finding in findings]


@pytest.mark.parametrize("mapped", [None, np.nan, 65536.0, 131072.0])
def test_what_is_asked_for_step_by_step_leaks(mapped: float | None) -> None:
    assert found(65536.0, mapped) == [0]


def test_an_array_that_fills_up_or_a_mapped_file_that_is_read_does_not() -> None:
    assert found(65536.0, 0.0) == []
