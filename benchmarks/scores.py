"""Recall, precision, false alarms and delay of whoever looked, from alarms and the truth."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

APART = 50
"""Steps between alarms that count as two: textbook detectors go on alarming."""
MILLION = 1_000_000


class Verdict(NamedTuple):
    """What one method said of one case. ``hit`` is the first right alarm, -1 without one."""

    faulty: bool
    onset: int
    hit: int
    false: int
    calm: int
    """Steps in which nothing was wrong."""


class Score(msgspec.Struct):
    """Of one method over many cases."""

    cases: int
    recall: float
    precision: float
    f1: float
    false_per_million: float
    delay: float
    """Median, from the onset to the first right alarm."""


def judged(alarms: Sequence[int], *, onset: int, steps: int) -> Verdict:
    """The verdict over alarms of whatever kind; ``onset`` is -1 where nothing was wrong."""
    faulty = onset >= 0
    calm = onset if faulty else steps
    hit = next((alarm for alarm in alarms if faulty and alarm >= onset), -1)
    return Verdict(faulty, onset, hit, spaced(alarm for alarm in alarms if alarm < calm or not faulty), calm)


def spaced(alarms: Iterable[int]) -> int:
    """How many alarms there are, when those that follow closely are the same one.

    >>> spaced([3, 4, 60, 200])
    3
    """
    count, last = 0, -APART
    for alarm in alarms:
        count += alarm - last >= APART
        last = alarm
    return count


def score(verdicts: Sequence[Verdict]) -> Score:
    """Everything that is said of a method. Without alarms precision is not a number."""
    faulty = [each for each in verdicts if each.faulty]
    hits = [each for each in faulty if each.hit >= 0]
    false, calm = sum(each.false for each in verdicts), sum(each.calm for each in verdicts)
    recall = len(hits) / len(faulty) if faulty else float("nan")
    precision = len(hits) / (len(hits) + false) if hits or false else float("nan")
    f1 = 2 * recall * precision / (recall + precision) if hits else 0.0
    delay = float(np.median([each.hit - each.onset for each in hits])) if hits else float("nan")
    return Score(len(verdicts), recall, precision, f1, MILLION * false / calm if calm else float("nan"), delay)


def table(scores: dict[str, Score], unit: str = "step") -> str:
    """For people."""
    lines = [f"{'':22} {'recall':>7} {'precision':>9} {'F1':>6} {f'false/1e6 {unit}s':>18} {'delay':>7}"]
    lines += [
        f"{name:22} {each.recall:7.3f} {each.precision:9.3f} {each.f1:6.3f}"
        f" {each.false_per_million:18.1f} {each.delay:7.0f}"
        for name, each in scores.items()
    ]
    return "\n".join(lines)
