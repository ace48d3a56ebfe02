"""What torch.compile compiles again: read from dynamo's own records, told when it goes on, else left alone."""

from types import SimpleNamespace

import pytest
import torch
import torch._dynamo.utils as dynamo
from torchvitals.agent.case import Case
from torchvitals.agent.causes.changing_constant import ChangingConstant
from torchvitals.agent.causes.dynamic_shapes import DynamicShapes
from torchvitals.agent.history import History
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.recompile_storm import RecompileStorm
from torchvitals.hooks.recompilations import Recompilations
from torchvitals.signals.records import Event


@pytest.fixture
def fresh_dynamo():
    torch._dynamo.reset()
    dynamo.counters.clear()
    dynamo.clear_compilation_metrics()
    yield
    torch._dynamo.reset()


def test_recompilations_are_read_with_their_reason_and_line(fresh_dynamo):
    told = []
    looks = Recompilations(lambda kind, **details: told.append((kind, details)))
    double = torch.compile(lambda values: values * 2, backend="eager", dynamic=False)

    steps = []
    for size in (4, 4, 5, 5):
        double(torch.ones(size))
        steps.append(looks.since())

    assert [step.get("recompilations") for step in steps] == [None, None, 1.0, None]
    assert steps[0]["compile_seconds"] > 0
    assert steps[1] == {}
    ((kind, details),) = told
    assert kind == "recompiled"
    assert details["reason"] == "tensor 'values' size mismatch at index 0. expected 4, actual 5"
    assert details["line"].startswith(("tests/test_recompile_storm.py:", "test_recompile_storm.py:"))


def test_what_was_compiled_before_is_not_told(fresh_dynamo):
    double = torch.compile(lambda values: values * 2, backend="eager", dynamic=False)
    for size in range(2, 12):
        double(torch.ones(size))

    assert Recompilations(lambda *_args, **_details: None).since() == {}


def test_a_function_that_torch_gives_up_is_counted(fresh_dynamo):
    looks = Recompilations(lambda *_args, **_details: None)
    double = torch.compile(lambda values: values * 2, backend="eager", dynamic=False)
    for size in range(2, 12):
        double(torch.ones(size))

    assert looks.since()["recompile_limit_hits"] == 1.0


def storms(again, hits=(), steps=200, compile_seconds=1.0):
    """Findings where these steps recompile, and these give a function up; other steps take 0.1 s."""
    detector, found = RecompileStorm(), []
    for step in range(steps):
        values = {"step_seconds": [0.1]}
        if step in again:
            values = {"recompilations": [1.0], "compile_seconds": [compile_seconds]}
            values["step_seconds"] = [0.1 + compile_seconds]
        if step in hits:
            values["recompile_limit_hits"] = [1.0]
        found += detector.update(Reading.of(step, **values))
    return [(finding.first_step, finding.step) for finding in found]


@pytest.mark.parametrize(
    ("again", "hits", "seconds", "expected"),
    [
        ((7, 8, 50, 51), (), 9.0, []),  # a smaller last batch and an evaluation, each compiled for long
        (range(20, 60), (), 1.0, [(20, 35)]),
        (range(20, 60), (), 0.01, []),  # so cheap that nobody has to know
        (range(20, 28), (27,), 0.01, [(20, 27)]),
    ],
)
def test_a_storm_goes_on_or_ends_in_giving_up(again, hits, seconds, expected):
    assert storms(again, hits, compile_seconds=seconds) == expected


def case(*reasons):
    finding = Finding(
        kind="recompile_storm", severity="warning", first_step=10, step=17, value=8.0, threshold=16.0, rank=0,
        evidence={"gave_up": True, "compile_seconds": 4.0, "seconds": 5.0, "steps": 8},
    )  # fmt: skip
    events = [
        (0, Event(0.0, 10 + i, "recompiled", {"reason": reason, "function": "forward", "line": "net.py:7"}))
        for i, reason in enumerate(reasons)
    ]
    return Case(findings=[finding], history=History(), facts={}, events=events)


SHAPES = ["tensor 'x' size mismatch at index 1. expected 12, actual 13"] * 4
MODES = ["GLOBAL_STATE changed: grad_mode"]
VALUES = [f"self.n == {n}" for n in range(4)]


@pytest.mark.parametrize(
    ("reasons", "speaks"),
    [(MODES + SHAPES, DynamicShapes), (MODES + VALUES, ChangingConstant), (MODES, None), ([], None)],
)
def test_the_guards_that_failed_tell_shapes_from_values(reasons, speaks):
    given = case(*reasons)

    opinions = {cause: cause().weigh(given) for cause in (DynamicShapes, ChangingConstant)}

    assert [cause for cause, opinion in opinions.items() if opinion] == ([speaks] if speaks else [])
    assert all(opinion is None or opinion.where == "net.py:7" for opinion in opinions.values())


def test_without_dynamo_s_records_nothing_is_said(monkeypatch):
    looks = Recompilations(lambda *_args, **_details: None)
    monkeypatch.setitem(__import__("sys").modules, "torch._dynamo.utils", SimpleNamespace())

    assert looks.since() == {}
