"""False alarms asked for against those observed: `python -m benchmarks.calibration [--runs N] [--json FILE]`.

Every calibrated detector looks at streams in which nothing happens (`null_streams.py`), with its effect key switched
off so that the significance key alone decides, and with allowances over two decades. Alarms that the same noise
sets off within ``APART`` tests count once. With the effect key on, as detectors ship, there are fewer or none.

The runs of a kind are looked at together: each is one subject of one detector, and each rate asked of it has a tail and
an allowance of its own; what is said of it is what the detector would say alone (`tests/test_calibration.py`).
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

sys.path.append(str(Path(__file__).parent))  # `python -m benchmarks.calibration` finds its neighbours, too

from null_streams import NULLS, processes
from torchvitals.detectors.allowance import MONTH, Allowance, Tail
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.slowdown import Rows, Slowdown
from torchvitals.detectors.two_sample import Contrast

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
APART = 12
"""Tests between alarms that count as two."""
EXPECTED = (1.0, 10.0, 100.0)
"""False alarms that are asked for in each stream: two decades."""
SURE = 0.95
"""Of the interval that is given with each count."""


class Runs(Protocol):
    """A detector without its effect key whose subjects are runs of their own, each judged at all rates."""

    above: Mask
    """Which runs (first axis) alarm at which rates, by the newest reading."""

    def update(self, reading: Reading) -> list[Finding]: ...


class Slowdowns(Slowdown):
    """Runs of one rank each."""

    def __init__(self, runs: int, rates: Sequence[float]) -> None:
        super().__init__(factor=1.0, spread=0.0, least_seconds=0.0, lasting_seconds=0.0)
        self.tails = [[Tail(Allowance(rate)) for rate in rates] for _ in range(runs)]
        self.scores = [-np.inf] * runs
        self.above = np.zeros((runs, len(rates)), dtype=bool)
        self.unlikely = np.zeros_like(self.above)
        """At which rates the slow blocks in progress are more than chance."""

    def update(self, reading: Reading) -> list[Finding]:
        self.above[:] = False
        return super().update(reading)

    def _judge(self, step: int, ranks: Rows, turn: slice) -> list[Finding]:
        findings = super()._judge(step, ranks, turn)
        self.above[ranks] = self.unlikely[ranks] & (self._slow[ranks] >= self.blocks)[:, None]
        return findings

    def _surprising(self, rank: int) -> bool:
        score = -float(np.log(np.clip(self._chance(rank), 1e-300, 1.0)))
        self.scores[rank] = max(self.scores[rank], score)
        self.unlikely[rank] = [score > tail.limit() for tail in self.tails[rank]]
        return False  # it may tell the same symptom again: here each telling counts

    def _note(self, time: float) -> None:
        for rank, tails in enumerate(self.tails):
            for tail in tails:
                tail.note(self.scores[rank], time)
            self.scores[rank] = -np.inf


class Drifts(Drift):
    """Services with one feature each."""

    def __init__(self, runs: int, rates: Sequence[float]) -> None:
        super().__init__(floor=0.0, scale_floor=0.0, missing_floor=0.0, zero_floor=0.0, gradual_factor=1.0)
        self.tails = [[Tail(Allowance(rate)) for rate in rates] for _ in range(runs)]
        self.above = np.zeros((runs, len(rates)), dtype=bool)

    def _confirmed(self, contrasts: list[Contrast], time: float) -> list[Contrast]:
        likeliest = np.min([np.where(each.moved, each.p, 1.0) for each in contrasts], axis=(0, 1))
        self.above[:] = False
        for run, p in enumerate(likeliest.tolist()):
            score = -float(np.log(max(p, 1e-300))) if p < 1 else -np.inf
            for rate, tail in enumerate(self.tails[run]):
                self.above[run, rate] = p < 1 and score > tail.limit()
                tail.note(score, time)
        return [each._replace(moved=np.zeros_like(each.moved)) for each in contrasts]  # see Slowdowns


def step(_place: int, x: Floats, _rng: np.random.Generator) -> dict[str, Floats]:
    return {"step_seconds": 0.5 * np.exp(0.1 * x)}


def block(_place: int, x: Floats, rng: np.random.Generator) -> dict[str, Floats]:
    """Half of the variance is the stream's own, half that of 64 rows in a block."""
    noise = rng.normal(size=(2, len(x)))
    shares = {name: np.zeros(len(x)) for name in ("feature_missing", "feature_zero", "feature_role")}
    rows = {"feature_rows": np.full(len(x), 64.0)}
    return shares | rows | {"feature_mean": 5 + (x + noise[0]) / 8, "feature_std": np.exp(noise[1] / 128**0.5)}


class Subject(NamedTuple):
    """A detector, and what it reads of processes."""

    make: Callable[[int, Sequence[float]], Runs]
    values: Callable[[int, Floats, np.random.Generator], dict[str, Floats]]
    seconds: float
    """From one reading to the next."""
    test: int
    """Readings from one test to the next."""
    readings: int
    """In one stream."""


SUBJECTS = {
    "slowdown": Subject(Slowdowns, step, 1.0, 20, 150_000),
    "drift": Subject(Drifts, block, 16.0, 1, 10_000),
}


def readings(subject: Subject, kind: str, seed: int, *, runs: int) -> Iterator[Reading]:
    """``runs`` streams of one kind."""
    rng = np.random.default_rng(seed + 1000)
    present = np.ones(runs, dtype=bool)
    for place, x in enumerate(processes(kind, subject.readings, (runs,), seed)):
        values = subject.values(place, x, rng)
        yield Reading(place, subject.seconds * place, values, dict.fromkeys(values, present), masked=True)


def alarms(subject: Subject, stream: Iterator[Reading], runs: int, rates: Sequence[float]) -> NDArray[np.int64]:
    """False alarms of each run (first axis) where so many are allowed in a month."""
    detector = subject.make(runs, rates)
    shape = (runs, len(rates))
    counts, last = np.zeros(shape, dtype=np.int64), np.full(shape, -APART * subject.test)
    for place, reading in enumerate(stream):
        detector.update(reading)
        counts += detector.above & (place - last >= APART * subject.test)
        last[detector.above] = place
    return counts


def measured(name: str, kind: str, seed: int, *, runs: int) -> list[dict[str, Any]]:
    """One row for each rate: what was asked of ``runs`` streams of a kind, and what came."""
    subject = SUBJECTS[name]
    months = subject.readings * subject.seconds / MONTH
    rates = [expected / months for expected in EXPECTED]
    counts = alarms(subject, readings(subject, kind, seed, runs=runs), runs, rates)
    return [
        {"detector": name, "stream": kind, "per_month": rate, "asked": expected * runs, "observed": each.tolist()}
        for rate, expected, each in zip(rates, EXPECTED, counts.T, strict=True)
    ]


def told(asked: float, observed: int) -> str:
    """Both, and between which multiples of what was asked the true rate lies (of Poisson counts: Garwood 1936)."""
    low = stats.chi2.ppf((1 - SURE) / 2, 2 * observed) / 2 if observed else 0.0
    high = stats.chi2.ppf((1 + SURE) / 2, 2 * observed + 2) / 2
    return f"{observed:6d} of {asked:6.0f} (×{low / asked:.2f} to {high / asked:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=16, help="streams of each kind and rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--detectors", nargs="*", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--streams", nargs="*", choices=list(NULLS), default=list(NULLS))
    parser.add_argument("--json", type=Path, help="write all rows there")
    chosen = parser.parse_args()
    rows = []
    for name in chosen.detectors:
        for kind in chosen.streams:
            began = time.perf_counter()
            made = measured(name, kind, chosen.seed, runs=chosen.runs)
            line = "  ".join(told(row["asked"], sum(row["observed"])) for row in made)
            print(f"{name:9} {kind:14} {line}   ({time.perf_counter() - began:.0f} s)", flush=True)
            rows += made
    for name in chosen.detectors:
        for expected in EXPECTED:
            mine = [row for row in rows if row["detector"] == name and row["asked"] == expected * chosen.runs]
            asked, observed = sum(row["asked"] for row in mine), sum(sum(row["observed"]) for row in mine)
            print(f"{name:9} {mine[0]['per_month']:9.1f} a month asked: {told(asked, observed)}")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
