"""One number says how often detectors may be wrong, wherever a run is judged."""

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.signal import lfilter
from torchvitals.agent import config
from torchvitals.agent.config import ConfigError
from torchvitals.agent.engine import Engine
from torchvitals.agent.false_alarms import VARIABLE
from torchvitals.agent.watch import Watch
from torchvitals.detectors import DETECTORS
from torchvitals.detectors.allowance import MONTH, Allowance, Calibrated, Tail
from torchvitals.detectors.class_order import SHARE, ClassOrder
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.drift import Drift
from torchvitals.detectors.slowdown import Slowdown
from torchvitals.detectors.surprise import surprise
from torchvitals.detectors.two_sample import STATISTICS, Contrast
from torchvitals.signals.reader import Entry, RunReader
from torchvitals.signals.records import LAUNCHER_RANK, Event, Hello


def launched(**environment: str) -> Entry:
    hello = Hello(run="r", rank=LAUNCHER_RANK, pid=1, world_size=0, role="launcher")
    return Entry(hello, Event(0.0, -1, "command", {"command": ["x"], "environment": environment}), None)


def test_a_run_is_judged_by_the_number_it_was_started_with() -> None:
    usual, insisting = Engine("r", allowance=Allowance(3.0)), Engine("r", allowance=Allowance(3.0), insist=True)
    for engine in (usual, insisting):
        engine.feed(launched(**{VARIABLE: "0.25"}))

    assert usual.allowance.per_month == 0.25
    assert insisting.allowance.per_month == 3.0
    assert Engine("r").allowance.per_month == 1.0


@pytest.mark.parametrize("text", ["often", "0", "-1", "nan"])
def test_a_number_that_makes_no_sense_is_refused_or_left_out(text: str) -> None:
    engine = Engine("r")
    engine.feed(launched(**{VARIABLE: text}))

    assert engine.allowance.per_month == 1.0
    with pytest.raises(ConfigError):
        config.usual_false_alarms({VARIABLE: text, "HOME": "/nowhere"})


def test_environment_and_default_reach_the_agent() -> None:
    assert config.load(environ={VARIABLE: "7"}).false_alarms_per_month == 7.0
    assert config.usual_false_alarms({VARIABLE: "7"}) == 7.0
    assert config.load(environ={}).false_alarms_per_month == 1.0


def test_a_score_above_the_threshold_counts_as_what_such_scores_are_expected_to_be() -> None:
    tail = Tail(Allowance(), stretch=1, kept=4, held=0)
    for second, score in enumerate((4.0, 1.0, 3.0, 2.0)):
        tail.note(score, float(second))
    before = tail.limit()
    assert tail.excess() == 2.0  # of 2, 3 and 4 over 1

    tail.note(1e6, 4.0)

    assert tail.excess() == pytest.approx((before + 1.0 + 2.0) / 3)  # of 3, 4 and the new one over 2


def test_calibrated_detectors_share_the_allowance() -> None:
    watch = Watch([cls for cls in DETECTORS if cls.axis == "feature"], allowance=Allowance(6.0))
    shares = [detector.tail.allowance for detector in watch.detectors if isinstance(detector, Calibrated)]

    assert [share.chance(1.0) for share in shares] == [Allowance(3.0).chance(1.0)] * 2


def test_the_threshold_follows_from_the_tail_of_the_past() -> None:
    rng = np.random.default_rng(0)
    tail = Tail(Allowance(per_month=2592.0), stretch=4, held=2)  # one in a thousand seconds
    before = tail.limit()
    scores = rng.exponential(2.0, 20_000)
    for second, score in enumerate(scores):
        tail.note(float(score), float(second))

    assert before == pytest.approx(math.log(1000))
    assert 2 * math.log(500) < tail.limit() < 2 * math.log(2000)


def test_a_fault_that_builds_up_does_not_raise_the_bar_for_itself() -> None:
    rng, tail = np.random.default_rng(0), Tail(Allowance(), stretch=4, kept=4, held=2)
    for second in range(64):
        tail.note(1.0 + rng.exponential(), float(second))
    calm = tail.limit()
    for second in range(64, 75):  # two stretches and a half
        tail.note(50.0, float(second))

    assert calm < 250
    assert 0.9 * calm < tail.limit() <= calm  # it falls as the past grows


def test_a_level_that_wanders_to_where_it_never_was_is_no_alarm_and_a_leap_is() -> None:
    rng, tail = np.random.default_rng(0), Tail(Allowance(per_month=2592.0))  # ten are allowed in 10,000 seconds
    level, above, highest = 0.0, 0, 0.0
    for second in range(10_000):
        level += 0.01 * rng.normal()
        score = (level + 0.3 * rng.normal()) ** 2  # as -ln p of a mean that wanders, in some unit
        above += score > tail.limit()
        highest = max(highest, score)
        tail.note(score, float(second))

    assert tail.memory > 0.8
    assert above <= 20
    assert tail.limit() < 3 * highest


def test_a_cycle_is_not_told_of_each_time_that_it_comes_round() -> None:
    rng, tail, above = np.random.default_rng(0), Tail(Allowance(per_month=259.2)), 0  # one in 10,000 seconds
    for second in range(10_000):
        score = tail.first() + 1.5 + 0.2 * rng.random() if second % 97 == 48 else -math.inf
        above += score > tail.limit()
        tail.note(score, float(second))

    assert above <= 30  # of 103


def test_roots_of_scores_fall_off_exponentially_a_little_further_than_was_seen() -> None:
    tail = Tail(Allowance(per_month=MONTH / 27), stretch=1, kept=4, held=0)
    for second, root in enumerate((1.5, 0.5, 2.0, 1.0)):
        tail.note(root**2, float(second))

    assert tail.memory == 0
    assert tail.limit() == pytest.approx((0.5 + 3 * (27 ** (1 / 3) - 1)) ** 2)  # roots lie 1 above 0.5 in the mean
    tail.allowance = Allowance(per_month=MONTH / 64)  # further than ten times the four that were seen
    roots = 3 * (40 ** (1 / 3) - 1)
    assert tail.limit() == pytest.approx((0.5 + roots) ** 2 + tail.excess() * (3 * (64 ** (1 / 3) - 1) - roots))


def test_maxima_that_forget_are_taken_as_they_are() -> None:
    rng, tail = np.random.default_rng(0), Tail(Allowance())
    for second in range(10_000):
        tail.note(rng.exponential(), float(second))

    assert tail.memory < 0.05


def test_a_slow_level_under_noise_is_no_surprise_in_long_windows_and_a_jump_is() -> None:
    rng = np.random.default_rng(0)
    level = lfilter([0.19**0.5], [1, -0.9], rng.normal(size=(400, 160)), axis=1)[:, 100:]
    series = level + rng.normal(size=level.shape)
    wrong = sum(surprise(x[:44], x[44:], near=16, sampling=1.0) < 1e-3 for x in series)
    right = sum(surprise(x[:44], x[44:] + 8.0, near=16, sampling=1.0) < 1e-3 for x in series)

    assert wrong <= 8  # 0.4 asked for; 15 by the first autocorrelation alone
    assert right > 240


def slow(detector: Slowdown, sigma: float, factor: float, seed: int = 0) -> int:
    rng = np.random.default_rng(seed)
    found = 0
    for step in range(1600):
        seconds = (1.0 if step < 800 else factor) * np.exp(sigma * rng.normal())
        found += len(detector.update(Reading.of(step, float(step), step_seconds=seconds)))
    return found


def test_slowness_must_be_rare_as_well_as_large() -> None:
    strict, easy = Slowdown(), Slowdown()
    strict.allow(Allowance(1e-6))
    easy.allow(Allowance(1e5))

    assert slow(strict, 1.2, 4.5) == 0
    assert slow(easy, 1.2, 4.5) == 1
    assert slow(Slowdown(), 0.1, 3.0) == 1


def test_larger_batches_are_no_slowdown() -> None:
    found = []
    for larger in (True, False):
        detector = Slowdown()
        found.append(0)
        for step in range(800):
            late = step >= 400
            items = 32.0 * (4 if late and larger else 1)
            reading = Reading.of(step, float(step), step_seconds=0.2 * (4 if late else 1), batch_items=items)
            found[-1] += len(detector.update(reading))

    assert found == [0, 1]


@pytest.mark.parametrize(
    ("tops", "is_sorted"),
    [
        ([0] * 8 + [1] * 8, True),
        ([0] * 16, False),  # one class always
        ([-1] * 12 + [0, 0, 1, 1], False),  # mixed traffic with a stretch
        ([0, 1] * 8, False),  # classes in turn: every block like any other
    ],
)
def test_an_order_by_class_is_seen(tops: list[int], is_sorted: bool) -> None:
    order = ClassOrder()
    for top in tops:
        shares = [0.34, 0.33, 0.33] if top < 0 else [0.9 if top == k else 0.05 for k in range(3)]
        order.add(np.array([*shares, 0.3, 0.9]), np.full(5, SHARE))

    assert order.is_sorted() is is_sorted


def test_the_launcher_writes_the_number_down(tmp_path) -> None:
    command = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--quiet", "--dir", str(tmp_path)]
    subprocess.run([*command, "--false-alarms-per-month", "0.5", sys.executable, "-c", "1"], check=True, timeout=120)
    (run,) = tmp_path.iterdir()
    events = [e.record for p in RunReader(run).processes.values() for e in p.read() if isinstance(e.record, Event)]

    assert next(e for e in events if e.kind == "command").details["environment"][VARIABLE] == "0.5"


def test_small_changes_of_a_young_service_share_what_is_allowed_for_a_block() -> None:
    detector = Drift()
    shape = (len(STATISTICS), 2)
    p = np.full(shape, 1.0)
    p[0] = 0.9 * np.exp(-detector.tail.limit()) / 2  # of two features; unlikely enough by itself
    large = np.zeros(shape, dtype=bool)
    large[0, 1] = True
    moved = np.zeros(shape, dtype=bool)
    moved[0] = True

    (told,) = detector._confirmed([Contrast(moved, large, np.ones(shape), p)], 0.0)

    assert told.moved[0].tolist() == [False, True]
