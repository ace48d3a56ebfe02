"""False alarms asked for against those observed: `python -m benchmarks.calibration [--runs N] [--json FILE]`.

Every calibrated detector looks at streams in which nothing happens (`null_streams.py`), with its effect key switched
off so that the significance key alone decides, and with allowances over two decades. Alarms that the same noise
sets off within ``APART`` tests count once. With the effect key on, as detectors ship, there are fewer or none.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

sys.path.append(str(Path(__file__).parent))  # `python -m benchmarks.calibration` finds its neighbours, too

from null_streams import NULLS, processes
from torchvitals.detectors.allowance import MONTH, Allowance
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.slowdown import Slowdown

APART = 12
"""Tests between alarms that count as two."""
EXPECTED = (1.0, 10.0, 100.0)
"""False alarms that are asked for in each stream: two decades."""


class Subject(NamedTuple):
    """A detector without its effect key, and what it reads of one process."""

    make: Callable[[], Any]
    reading: Callable[[int, float, np.random.Generator], Reading]
    seconds: float
    """From one reading to the next."""
    test: int
    """Readings from one test to the next."""
    readings: int
    """In one stream."""


def step(place: int, x: float, _rng: np.random.Generator) -> Reading:
    return Reading.of(place, 1.0 * place, step_seconds=0.5 * np.exp(0.1 * x))


def block(place: int, x: float, rng: np.random.Generator) -> Reading:
    """Half of the variance is the stream's own, half that of 64 rows in a block."""
    mean, std = 5 + (x + rng.normal()) / 8, np.exp(rng.normal() / 128**0.5)
    shares = {"feature_missing": 0.0, "feature_zero": 0.0, "feature_rows": 64.0, "feature_role": 0.0}
    return Reading.of(16 * place, 16.0 * place, feature_mean=mean, feature_std=std, **shares)


SUBJECTS = {
    "slowdown": Subject(
        lambda: Slowdown(factor=1.0, spread=0.0, least_seconds=0.0, lasting_seconds=0.0), step, 1.0, 20, 150_000
    ),
    "drift": Subject(
        lambda: Drift(floor=0.0, scale_floor=0.0, missing_floor=0.0, zero_floor=0.0, gradual_factor=1.0),
        block,
        16.0,
        1,
        10_000,
    ),
}


def rearmed(detector: Any) -> None:
    """Let a detector tell the same symptom again: here each telling counts."""
    detector._alarmed[:] = False


def alarms(subject: Subject, readings: Iterator[Reading], rates: list[float]) -> list[int]:
    """False alarms in one stream, for each rate that is asked for."""
    detectors = [subject.make() for _ in rates]
    for detector, per_month in zip(detectors, rates, strict=True):
        detector.allow(Allowance(per_month))
    counts, last = [0] * len(rates), [-APART * subject.test] * len(rates)
    for place, reading in enumerate(readings):
        for number, detector in enumerate(detectors):
            if detector.update(reading):
                rearmed(detector)
                counts[number] += place - last[number] >= APART * subject.test
                last[number] = place
    return counts


def measured(name: str, kind: str, seed: int) -> list[dict[str, Any]]:
    """One row for each rate: what was asked of a stream, and what came."""
    subject, rng = SUBJECTS[name], np.random.default_rng(seed + 1000)
    months = subject.readings * subject.seconds / MONTH
    stream = processes(kind, subject.readings, (1,), seed)
    readings = (subject.reading(place, float(x[0]), rng) for place, x in enumerate(stream))
    rates = [expected / months for expected in EXPECTED]
    return [
        {"detector": name, "stream": kind, "per_month": rate, "asked": expected, "observed": observed}
        for rate, expected, observed in zip(rates, EXPECTED, alarms(subject, readings, rates), strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1, help="streams of each kind and rate")
    parser.add_argument("--detectors", nargs="*", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--streams", nargs="*", choices=list(NULLS), default=list(NULLS))
    parser.add_argument("--json", type=Path, help="write all rows there")
    chosen = parser.parse_args()
    rows = []
    for name in chosen.detectors:
        for kind in chosen.streams:
            began = time.perf_counter()
            made = [row for run in range(chosen.runs) for row in measured(name, kind, run)]
            told = "  ".join(
                f"{expected * chosen.runs:5.0f} → {sum(r['observed'] for r in made if r['asked'] == expected):4d}"
                for expected in EXPECTED
            )
            print(f"{name:12} {kind:16} {told}   ({time.perf_counter() - began:.0f} s)", flush=True)
            rows += made
    for name in chosen.detectors:
        for expected in EXPECTED:
            mine = [row for row in rows if row["detector"] == name and row["asked"] == expected]
            asked, observed = sum(row["asked"] for row in mine), sum(row["observed"] for row in mine)
            rate = np.mean([row["per_month"] for row in mine])
            told = f"{asked:6.0f} expected, {observed:6d} observed, ×{observed / asked:.2f}"
            print(f"{name:12} {rate:9.1f} a month asked: {told}")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
