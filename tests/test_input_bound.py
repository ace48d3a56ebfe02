"""A loader that falls behind, and when that is certain."""

import pytest
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.input_bound import InputBound


def watch(waits: list[float], compute: float = 0.05, load: float = 1.0) -> list[tuple[int, int]]:
    """First and detecting step of what is told of these waits for data, in seconds."""
    detector, found = InputBound(), []
    for step, wait in enumerate(waits):
        seconds = {"step_seconds": [compute + wait], "data_seconds": [wait]}
        found += detector.update(Reading.of(step, **seconds, **({"machine_load": [load]} if step % 64 == 0 else {})))
    return [(finding.first_step, finding.step) for finding in found]


def test_a_loader_that_had_kept_up_is_told_within_seconds() -> None:
    """As a dataset that goes to another disk: the job of half a minute ended before six blocks were over."""
    assert watch([0.008] * 125 + [0.5] * 75) == [(120, 199)]


@pytest.mark.parametrize(
    "waits",
    [
        [0.5] * 100 + [0.008] * 200,
        [0.008] * 125 + [0.5] * 50 + [0.008] * 200,
        [0.008] * 125 + [0.09] * 80 + [0.008] * 100,
        [0.02] * 125 + [0.09] * 90 + [0.008] * 100,
    ],
    ids=["a cache that fills", "a burst", "over in seconds", "little more than before"],
)
def test_what_passes_is_no_slow_loader(waits) -> None:
    assert watch(waits) == []


def test_a_loader_that_never_kept_up_is_told_after_the_first_epochs() -> None:
    assert watch([0.5] * 200) == [(0, 139)]


def test_a_slowly_growing_share_needs_all_blocks() -> None:
    assert watch([0.02] * 125 + [0.09] * 200) == [(140, 259)]


def test_a_small_batch_on_a_crowded_machine_is_no_slow_loader() -> None:
    waits = [0.021] * 300

    assert watch(waits, compute=0.006, load=1.0) != []
    assert watch(waits, compute=0.006, load=3.8) == []
