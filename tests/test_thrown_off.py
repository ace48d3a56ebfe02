"""Runs that the first updates throw far above their first loss."""

import pytest
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.thrown_off import ThrownOff

THROWN = [4.0, 9.9, 16.5, *[30.0, 41.0, 26.0] * 30]


def watch(losses: list[float], rate: float = 0.5, items: int = 16) -> list[Finding]:
    detector = ThrownOff()
    return [
        finding
        for step, loss in enumerate(losses)
        for finding in detector.update(Reading.of(step, loss=loss, learning_rate=rate, batch_items=items))
    ]


def test_a_loss_that_jumps_with_the_first_updates_and_stays_is_told_once() -> None:
    assert [(f.kind, f.first_step, f.step) for f in watch(THROWN)] == [("divergence", 1, 63)]


@pytest.mark.parametrize(
    ("losses", "given"),
    [
        (THROWN, {"rate": 1e-3}),  # a critic's values grow by design, at small rates
        (THROWN, {"items": 2}),  # one loss of two rows is no sample
        ([0.01, *THROWN], {}),  # a loss that starts at nothing has no scale
        ([4.0, *[30.0] * 12, *[3.0] * 60], {}),  # an overshoot that passes
        ([4.0, *[60.0 * 0.97**step for step in range(90)]], {}),  # on its way back
        ([2.3, *[5.0] * 90], {}),  # twice is not far
    ],
)
def test_what_is_no_throw(losses: list[float], given: dict[str, float]) -> None:
    assert watch(losses, **given) == []
