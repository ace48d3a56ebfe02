"""The rank that makes the others wait is named; ranks that take turns, and busy machines, are not."""

import numpy as np
import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.slow_compute_rank import SlowComputeRank
from torchvitals.agent.causes.slow_dataloader import SlowDataloader
from torchvitals.agent.causes.slow_input_rank import SlowInputRank
from torchvitals.agent.causes.unknown import Unknown
from torchvitals.agent.diagnosis import rank_causes
from torchvitals.agent.history import History
from torchvitals.detectors.detector import Finding, Reading
from torchvitals.detectors.straggler import Straggler

STEP = 0.1


def play(late, *, load=1.0, detector=None, **phases):
    """``late``: step × rank, seconds after the first could come; ``phases``: name → seconds by rank."""
    detector = detector or Straggler()
    found = []
    for step, row in enumerate(np.asarray(late)):
        half = np.sort(row)[(len(row) - 1) // 2]
        values = {"arrival_lateness": row - half, "step_seconds": [STEP] * len(row), "machine_load": [load] * len(row)}
        found += detector.update(Reading.of(step, **values, **phases))
    return found


def skew(ranks, steps=2000, seed=0, scale=0.004):
    return np.random.default_rng(seed).gamma(2.0, scale / 2, (steps, ranks))


@pytest.mark.parametrize("ranks", [2, 4, 64])
@pytest.mark.parametrize("seed", range(4))
def test_healthy_skew_is_silent(ranks, seed):
    assert play(skew(ranks, seed=seed)) == []


@pytest.mark.parametrize("ranks", [2, 4])
def test_uneven_but_fair_work_is_silent(ranks):
    """Each rank has long batches now and then, of half the step's time."""
    assert play(skew(ranks) + skew(ranks, seed=1, scale=0.05)) == []


def test_ranks_that_take_turns_are_silent():
    late = skew(4)
    for step in range(len(late)):
        late[step, step // 20 % 4] += 0.05

    assert play(late) == []


def test_a_rank_that_evaluates_now_and_then_is_silent():
    late = skew(2)
    late[::10, 0] += 5.0

    assert play(late) == []


def test_late_by_little_is_silent():
    late = skew(4, scale=0.001)
    late[:, 2] += 0.004

    assert play(late) == []


def test_a_busy_machine_must_be_late_by_more():
    late = skew(4)
    late[:, 2] += 0.0125

    assert play(late, load=2.5) == []
    assert [finding.subject for finding in play(late)] == [2]


@pytest.mark.parametrize("ranks", [2, 4, 64])
def test_the_late_rank_is_named_once_with_its_onset(ranks):
    late = skew(ranks)
    late[500:, 1] += 0.04
    (finding,) = play(late)

    assert finding.subject == 1
    assert 480 <= finding.first_step <= 520
    assert finding.step - finding.first_step < 4 * 32
    assert finding.evidence["last_share"] > 0.9


def test_what_was_so_from_the_beginning_is_dated_there():
    late = skew(2, steps=300)
    late[:, 0] += 0.05
    (finding,) = play(late)

    assert (finding.subject, finding.first_step, finding.step) == (0, 0, 103)


@pytest.mark.parametrize(
    ("phases", "phase"),
    [
        ({"data_seconds": [0.0, 0.04], "forward_seconds": [0.03, 0.03], "backward_seconds": [0.06, 0.02]}, "input"),
        ({"data_seconds": [0.0, 0.0], "forward_seconds": [0.01, 0.03], "backward_seconds": [0.08, 0.06]}, "compute"),
        ({"data_seconds": [0.0, 0.0], "forward_seconds": [0.01, 0.01], "backward_seconds": [0.08, 0.08]}, "compute"),
        ({"data_seconds": [0.0, 0.0], "forward_seconds": [0.03, 0.03], "backward_seconds": [0.06, 0.02]}, "host"),
        ({}, "compute"),
    ],
)
def test_where_the_time_goes(phases, phase):
    late = skew(2, steps=150, scale=0.001)
    late[:, 1] += 0.04
    (finding,) = play(late, **phases)

    assert finding.evidence["phase"] == phase


def test_one_rank_waits_for_nobody():
    detector = Straggler()

    assert play(skew(1), detector=detector) == []
    assert detector.status().state == "not_checked"


def case(**evidence):
    told = {
        "phase": "compute", "late_seconds": 0.04, "step_seconds": 0.1, "last_share": 0.97, "ranks": 4,
        "data_excess": 0.0, "forward_excess": 0.0, "backward_excess": 0.0, **evidence,
    }  # fmt: skip
    finding = Finding(
        kind="straggler", severity="warning", first_step=0, step=103, value=0.4, threshold=0.1, rank=2, evidence=told
    )
    return Case(findings=[finding], history=History(), facts={"loader": {"workers": 0}}, events=[], world_size=4)


def best(of):
    causes = [SlowInputRank(), SlowComputeRank(), Unknown()]
    ranked, opinion = rank_causes([(cause, cause.weigh(of)) for cause in causes])[0]
    return ranked, opinion


@pytest.mark.parametrize(
    ("evidence", "cause"),
    [
        ({"phase": "input", "data_excess": 0.038}, "slow_input_rank"),
        ({"phase": "compute"}, "slow_compute_rank"),
        ({"phase": "host", "data_excess": 0.002}, "slow_compute_rank"),
    ],
)
def test_the_cause_is_where_the_time_goes(evidence, cause):
    ranked, opinion = best(case(**evidence))

    assert ranked.cause == cause
    assert ranked.confidence > 0.9
    assert opinion.rank == 2
    assert len(opinion.title) < 80
    assert "40%" in opinion.explanation


def test_a_rank_that_waits_alone_is_no_slow_loader_of_the_job():
    late = case(phase="input", data_excess=0.038)
    bound = Finding(
        kind="input_bound", severity="warning", first_step=0, step=152, value=0.7, threshold=0.6, rank=2,
        evidence={"share": 0.7, "speedup": 3.0},
    )  # fmt: skip
    late.findings.append(bound)
    causes = [SlowInputRank(), SlowComputeRank(), SlowDataloader(), Unknown()]
    ranked, _ = rank_causes([(cause, cause.weigh(late)) for cause in causes])[0]

    assert ranked.cause == "slow_input_rank"
    assert ranked.confidence > 0.8


def test_larger_batches_are_a_reason():
    of = case()
    for step in range(50):
        for rank in range(4):
            of.history.add("batch_items", step, 64.0 if rank == 2 else 32.0, rank)
    ranked, _ = best(of)

    assert "its batches hold 64 items, the others' 32" in ranked.evidence
