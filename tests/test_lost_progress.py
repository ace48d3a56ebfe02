"""What had been learnt is gone after somebody wrote to the weights; ranks that average theirs are not somebody."""

import pytest
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.lost_progress import LostProgress


def found(**written: float) -> list[Finding]:
    """A loss that comes down for 80 steps and is back where it began from step 80 on."""
    detector, findings = LostProgress(), []
    for step in range(120):
        loss = 2.3 - 0.02 * step if step < 80 else 2.2
        findings += detector.update(Reading.of(step, loss=loss, **(written if step == 80 else {})))
    return findings


def test_weights_drawn_anew_are_told_with_their_step() -> None:
    (finding,) = found(weights_overwritten=1.0)

    assert finding.first_step == 80


@pytest.mark.parametrize("written", [{}, {"weights_overwritten": 1.0, "parameter_sum_found": 7.0}])
def test_a_loss_that_nobody_wrote_or_the_average_of_all_ranks_is_not(written: dict[str, float]) -> None:
    assert found(**written) == []
