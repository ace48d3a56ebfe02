"""The calibration benchmark looks at many runs at once; each is judged as if it were alone."""

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
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
        detector = Slowdown(factor=1.0, spread=0.0, least_seconds=0.0, lasting_seconds=0.0, warm_up=20 + row)
        if row:  # beside others its first block is not whole, and a test all the same
            detector.tail.note(-np.inf, 19.0 + row)
        return detector
    return Drift(floor=0.0, scale_floor=0.0, missing_floor=0.0, zero_floor=0.0, gradual_factor=1.0)


def steps(detector: Any, stream: list[Reading]) -> set[int]:
    """When it told."""
    told = set()
    for reading in stream:
        if detector.update(reading):
            told.add(reading.step)
        detector._alarmed[:] = False
    return told


@pytest.mark.parametrize(("name", "kind", "length"), [("slowdown", "ar 0.9", 8_000), ("drift", "bursts", 300)])
def test_runs_that_are_looked_at_together_are_judged_as_if_alone(name: str, kind: str, length: int) -> None:
    subject = calibration.SUBJECTS[name]
    stream = list(islice(calibration.readings(subject, kind, 7, runs=RUNS), length))
    detector = subject.make(RUNS, RATES)
    together, alone = set(), set()
    for reading in stream:
        detector.update(reading)
        together |= {(reading.step, int(run), int(rate)) for run, rate in zip(*detector.above.nonzero(), strict=True)}
    for run in range(RUNS):
        mine = [Reading.of(r.step, r.time, **{n: v[run] for n, v in r.values.items()}) for r in stream]
        for rate, per_month in enumerate(RATES):
            single = plain(name, run)
            single.allow(Allowance(per_month))
            alone |= {(step, run, rate) for step in steps(single, mine)}

    assert len(together) > 20
    assert together == alone
