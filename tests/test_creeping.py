"""A step that takes longer with every step is told from all that is meant to take longer, and with its place."""

import sys

import numpy as np
import pytest
from made_up import finding
from test_beat import Counters, Job, Time
from test_diagnosis import diagnosed, only
from torchvitals.agent.case import Case
from torchvitals.agent.causes.growing_cache import GrowingCache
from torchvitals.agent.causes.slow_dependency import SlowDependency
from torchvitals.agent.grown_work import grown_up
from torchvitals.agent.history import History
from torchvitals.detectors.creeping import Creeping
from torchvitals.detectors.detector import Reading
from torchvitals.hooks.beat import Heartbeat
from torchvitals.hooks.dwelling import Dwelling
from torchvitals.signals.records import Event

STEPS = np.arange(800)
LINE = STEPS / STEPS[-1]
FLAT = np.zeros(len(STEPS))


def found(loop, forward=FLAT, backward=FLAT, batch=FLAT, seed=0):
    """First steps and sizes of the findings; what each part gains is in units of the usual step's."""
    detector, rng, told = Creeping(), np.random.default_rng(seed), []
    for step in STEPS:
        slower = rng.lognormal(0.0, 0.1) * (1 + rng.pareto(2.0) * (rng.random() < 0.2))  # a busy machine
        passes = 0.003 * (1 + forward[step]), 0.005 * (1 + backward[step])
        values = {"step_seconds": [slower * (sum(passes) + 0.004 * (1 + loop[step]))]}
        if step % 5 == 0 or step < 100:  # the others are only counted
            values |= {"forward_seconds": [slower * passes[0]], "backward_seconds": [slower * passes[1]]}
            values["batch_values"] = [1024.0 * (1 + batch[step])]
        told += detector.update(Reading.of(int(step), **values))
    return [(each.first_step, each.value > 2.5) for each in told]


@pytest.mark.parametrize("seed", range(3))
def test_work_that_grows_with_every_step_is_told(seed: int) -> None:
    assert found(20 * LINE, seed=seed) == [(0, True)]
    assert found(FLAT, forward=30 * LINE, seed=seed) == [(0, True)]  # a memory that the model attends to
    ((first, large),) = found(40 * LINE**2, seed=seed)
    assert (first < 200, large) == (True, True)


@pytest.mark.parametrize("seed", range(3))
def test_what_is_meant_to_take_longer_is_no_slowdown(seed: int) -> None:
    for name, told in {
        "a steady job": found(FLAT, seed=seed),
        "a little more": found(2 * LINE, seed=seed),
        "longer episodes": found(20 * LINE, forward=20 * LINE, backward=20 * LINE, seed=seed),
        "larger pictures, prepared in the loop": found(20 * LINE, batch=2 * LINE, seed=seed),
        "a curriculum of four lessons": found(20 * np.floor(4 * LINE) / 4, seed=seed),
        "one leap, which another detector tells": found(20.0 * (STEPS > 400), seed=seed),
        "faster again": found(20 * np.abs(((LINE * 6) % 2) - 1), seed=seed),
    }.items():
        assert told == [], name


@pytest.mark.parametrize(("full", "excused"), [(0.25, True), (0.4, True), (1.0, False)])
def test_a_buffer_that_is_full_is_excused(full: float, excused: bool) -> None:
    rng, history = np.random.default_rng(0), History()
    for step in STEPS:
        history.add("step_seconds", int(step), rng.lognormal(0.0, 0.2) * (0.01 + 0.05 * min(1.0, LINE[step] / full)))
    case = Case(findings=[finding("slowdown", 190, first=0, evidence=CREEPS)], history=history, facts={}, events=[])

    assert bool(grown_up(case)) is excused


def test_without_a_clock_nothing_is_claimed() -> None:
    detector = Creeping()
    assert [detector.update(Reading.of(step, step_seconds=[0.01 + 1e-3 * step])) for step in range(600)] == [[]] * 600


@pytest.mark.parametrize(("severity", "kind"), [("warning", "slowdown"), ("error", "memory_leak")])
def test_what_is_kept_and_gone_through_is_one_incident(severity: str, kind: str) -> None:
    slow = finding("slowdown", 300, first=0, evidence=CREEPS)
    leak = finding("memory_leak", 344, first=96, severity=severity, evidence={"bytes_per_step": 7e4})

    assert only(diagnosed(slow, leak)).kind == only(diagnosed(leak, slow)).kind == kind
    assert kind == "memory_leak" or only(diagnosed(slow, leak)).cause == "growing_cache"


CREEPS = {"shape": "gradual", "seconds_before": 0.01, "seconds_now": 0.04, "seconds_per_step": 1e-4}


def test_the_cause_is_what_grows_and_the_place_where_the_job_dwells() -> None:
    details = {"line": "train.py:9", "code": "acc = running(ps, ts)", "function": "main", "share": 0.8, "looks": 16}
    case = Case(
        findings=[finding("slowdown", 300, first=0, evidence=CREEPS)],
        history=History(),
        facts={},
        events=[(0, Event(1.0, 60, "dwells", details))],
    )
    opinion = GrowingCache().weigh(case)

    assert opinion is not None
    assert opinion.where == "train.py:9"
    assert "0.1 ms longer" in opinion.title
    assert SlowDependency().weigh(case) is None


def searched(frames):
    """What a loop does between the steps, as a look finds it: deep in the standard library."""
    list(map(lambda _: frames.append(sys._getframe()), range(1)))  # noqa: C417 (a frame of its own)


def test_where_the_job_dwells_is_told_after_four_looks_and_eight() -> None:
    frames = []
    searched(frames)
    dwelling = Dwelling()
    told = [dwelling.look(frame) for frame in [None, *frames * 7]]

    assert [place for place, each in enumerate(told) if each] == [3, 7]
    assert told[7]["line"].rpartition(":")[0].endswith("test_creeping.py")
    assert (told[7]["share"], told[7]["looks"]) == (7 / 8, 8)


def test_a_job_that_is_somewhere_else_each_time_dwells_nowhere() -> None:
    dwelling = Dwelling()

    assert [dwelling.look(None) for _ in range(8)] == [None] * 8


def test_beats_look_where_a_job_that_moves_spends_its_time() -> None:
    job, time = Job(), Time()
    heart = Heartbeat(job, collectives=Counters(), clock=time, monotonic=time)
    for step in range(5):
        job.step = step
        heart.beat()
    (told,) = job.of(Event)

    assert told.kind == "dwells"
    assert told.details["looks"] == 4
