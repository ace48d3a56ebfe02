"""A collapsing loss scale, told from the search for one."""

from collections.abc import Iterable

from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.loss_scale_collapse import LossScaleCollapse


def watch(skips: Iterable[bool], scale: float = 65536.0, growth: int = 2000) -> list[Finding]:
    """A scaler that halves on a skip and doubles after ``growth`` good steps."""
    detector, found, good = LossScaleCollapse(), [], 0
    for step, skip in enumerate(skips):
        found += detector.update(Reading.of(step, loss_scale=scale, skipped_steps=float(skip)))
        good = 0 if skip else good + 1
        scale = scale / 2 if skip else scale * 2 if good and good % growth == 0 else scale
    return found


def test_the_search_at_the_start_is_normal() -> None:
    assert watch([True] * 12 + [False] * 500) == []


def test_a_short_growth_interval_skips_for_ever_around_a_scale_that_stays() -> None:
    assert watch([step % 5 == 4 for step in range(1000)], growth=4) == []


def test_overflow_whatever_the_scale() -> None:
    found = watch([False] * 75 + [True] * 40)

    assert [(f.first_step, f.kind) for f in found] == [(75, "loss_scale_collapse")]
    assert found[0].step <= 75 + 20


def test_a_storm_from_an_absurd_scale() -> None:
    assert [f.step for f in watch([True] * 60, scale=2.0**127)] == [19]


def test_slow_decline_between_good_steps() -> None:
    found = watch([step > 100 and step % 2 == 0 for step in range(160)])

    assert [f.first_step for f in found] == [102]


def test_no_scaler_is_not_checked() -> None:
    detector = LossScaleCollapse()
    detector.update(Reading.of(0, loss=1.0))

    assert detector.status().state == "not_checked"
