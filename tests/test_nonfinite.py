"""Non-finite losses and applied gradients, at once and once; skipped steps are how a scaler works."""

import math

from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.nonfinite import NonFinite

NAN, INF = math.nan, math.inf


def watch(*steps: dict[str, float]) -> list[Finding]:
    detector = NonFinite()
    return [finding for step, values in enumerate(steps) for finding in detector.update(Reading.of(step, **values))]


def test_one_finding_for_a_run_of_nan() -> None:
    found = watch({"loss": 1.0, "gradient_norm": 0.5}, *[{"loss": NAN, "gradient_norm": NAN}] * 5)

    assert [(f.first_step, f.severity) for f in found] == [(1, "critical")]
    assert found[0].evidence["loss_before"] == 1.0
    assert found[0].evidence["gradient_before"] == 0.5


def test_a_gradient_may_break_alone() -> None:
    found = watch({"loss": 1.0, "tripwire_norm": 1.0}, {"loss": 1.0, "tripwire_norm": INF})

    assert [f.evidence["signals"] for f in found] == [["tripwire_norm"]]


def test_a_loss_alone_is_an_error_and_not_yet_a_catastrophe() -> None:
    assert [f.severity for f in watch({"loss": -INF, "gradient_norm": 1.0})] == ["error"]


def test_skipped_steps_apply_nothing() -> None:
    assert watch(*[{"loss": NAN, "gradient_norm_unclipped": INF, "skipped_steps": 1.0}] * 3) == []


def test_nan_among_the_inputs_is_evidence_only() -> None:
    assert watch({"loss": 1.0, "input_nonfinite": 1.0}) == []
    assert watch({"loss": NAN, "input_nonfinite": 1.0})[0].evidence["input_nonfinite"] is True


def test_nothing_seen_is_not_ok() -> None:
    detector = NonFinite()
    detector.update(Reading.of(0, learning_rate=1.0))

    assert detector.status().state == "not_checked"
