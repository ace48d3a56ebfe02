"""Services that become slow, for which reason, and those that only seem so."""

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.slow_dependency import SlowDependency
from torchvitals.agent.history import History
from torchvitals.detectors.detector import Finding
from torchvitals.detectors.latency import Latency
from torchvitals.hooks.request_work import RequestWork
from torchvitals.signals.records import Hello, Requests, Step

HELLO = Hello(run="r", rank=0, world_size=1, pid=7)
SLOW_FROM = 1003


def ordinary(requests=2400, seed=0):
    return 0.004 * np.exp(0.3 * np.random.default_rng(seed).standard_normal(requests))


def told(seconds, rows=None, before=0, **vitals):
    """Findings about requests of these ``seconds``; ``vitals`` are told from the request ``before`` on."""
    detector, found = Latency(), []
    rows = np.full(len(seconds), 4) if rows is None else rows
    for first in range(0, len(seconds), 64):
        if vitals and first >= before:
            found += detector.observe(HELLO, Step(first, 1.0, vitals))
        here = slice(first, first + 64)
        latencies, items = (part[here].astype(kind).tobytes() for part, kind in ((seconds, "<f4"), (rows, "<i4")))
        found += detector.observe(HELLO, Requests(first, 1.0, "Net", latencies, [], items))
    return found


def slow(times=10.0, until=None):
    seconds = ordinary()
    seconds[SLOW_FROM:until] *= times
    return seconds


def test_a_service_that_becomes_slow_is_told_once_with_the_request() -> None:
    (finding,) = told(slow())

    assert (finding.kind, finding.name) == ("latency", "Net")
    assert abs(finding.first_step - SLOW_FROM) <= 3
    assert finding.value == pytest.approx(0.04, rel=0.1)


def test_a_core_that_was_never_missing_is_no_excuse_for_the_machine() -> None:
    assert len(told(slow(), machine_load=3.0, request_starved_ratio=0.05)) == 1


@pytest.mark.parametrize(
    "healthy",
    [
        {"seconds": slow(2.0)},
        {"seconds": slow(until=SLOW_FROM + 60)},  # a pause
        {"seconds": 0.1 * slow(4.0)},  # too little to be felt
        {"seconds": slow(3.5)[: SLOW_FROM + 200]},  # not for long enough
        {"seconds": slow(), "rows": np.where(np.arange(2400) < SLOW_FROM, 4, 64)},
        {"seconds": np.where(np.arange(2400) // 150 % 3 == 1, 0.04, 0.004)},  # two kinds of requests
        {"seconds": slow(), "before": SLOW_FROM - 64, "request_starved_ratio": 0.7},
        {"seconds": slow(), "before": SLOW_FROM - 64, "machine_load": 2.5},
    ],
    ids=["twice", "a pause", "microseconds", "soon over", "larger", "two kinds", "starved", "loaded"],
)
def test_what_passes_is_small_or_of_the_machine_is_silent(healthy) -> None:
    assert told(**healthy) == []


@pytest.mark.parametrize(("computes", "speaks"), [(0.1, True), (1.0, False)])
def test_a_dependency_is_blamed_for_what_the_process_does_not_compute(computes, speaks) -> None:
    history = History()
    for request in range(15, 2400, 16):
        history.add("request_cpu_ratio", request, 1.0 if request < SLOW_FROM else computes, 0)
    finding = Finding(
        kind="latency", severity="error", first_step=SLOW_FROM, step=1200, value=0.04, threshold=0.012, name="Net",
        rank=0, evidence={"usual": 0.004},
    )  # fmt: skip

    opinion = SlowDependency().weigh(Case(findings=[finding], history=history, facts={}, events=[]))

    assert (opinion is not None) is speaks
    assert not speaks or ("36 ms" in opinion.title and opinion.where == "Net")


def test_computing_and_waiting_are_told_apart() -> None:
    work = RequestWork()
    assert "request_cpu_ratio" not in work.read()  # nothing was answered
    work.answering = 0.5
    told_of = work.read()
    assert 0 <= told_of["request_cpu_ratio"] < 1
    assert work.answering == 0.0
