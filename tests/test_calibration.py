"""The calibration benchmark looks at many runs at once; each is judged as if it were alone."""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torchvitals.detectors.allowance import Allowance
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.slowdown import Slowdown

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import calibration

RUNS, RATES = 3, (300.0, 30_000.0)


def plain(name: str, row: int) -> Any:
    """The detector as it is, without its effect key; blocks of steps of rank i end i steps after those of rank 0."""
    if name == "slowdown":
        return Slowdown(factor=1.0, spread=0.0, least_seconds=0.0, lasting_seconds=0.0, warm_up=20 + row)
    return Drift(floor=0.0, scale_floor=0.0, missing_floor=0.0, zero_floor=0.0, gradual_factor=1.0)


def steps(detector: Any, stream: list[Reading]) -> list[tuple[int, int | None]]:
    """Who was told of, and when."""
    told = []
    for reading in stream:
        told += [(finding.step, finding.subject) for finding in detector.update(reading)]
        detector._alarmed[:] = False
    return told


@pytest.mark.parametrize(("name", "kind", "length"), [("slowdown", "ar 0.9", 8_000), ("drift", "bursts", 300)])
def test_runs_that_are_looked_at_together_are_judged_as_if_alone(name: str, kind: str, length: int) -> None:
    subject = calibration.SUBJECTS[name]
    stream = list(islice(calibration.readings(subject, kind, 7, runs=RUNS, rates=len(RATES)), length))
    together = set(steps(subject.make(RATES * RUNS), stream))
    alone: set[tuple[int, int | None]] = set()
    for row in range(RUNS * len(RATES)):
        detector = plain(name, row)
        detector.allow(Allowance(RATES[row % len(RATES)]))
        mine = [Reading.of(r.step, r.time, **{n: v[row] for n, v in r.values.items()}) for r in stream]
        alone |= {(step, row) for step, _ in steps(detector, mine)}

    assert len(together) > 20
    assert together == alone
