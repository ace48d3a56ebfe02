"""A network that becomes slow is told, and nobody is named for it; what only wavers is silent."""

import numpy as np
import pytest
from torchvitals.detectors.congestion import Congestion
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.straggler import Straggler

OWN_WORK = 0.05
"""Seconds of a step that are no sharing."""
SLOW_FROM = 200


def play(sharing, *, detector=None):
    """``sharing``: step × rank, seconds from the arrival of the last rank to where each leaves."""
    detector = detector or Congestion()
    found, time = [], 0.0
    for step, row in enumerate(np.asarray(sharing)):
        time += OWN_WORK + row.max()
        late = row - np.sort(row)[(len(row) - 1) // 2]
        values = {"arrival_lateness": late, "step_seconds": [OWN_WORK + row.max()] * len(row)}
        found += detector.update(
            Reading.of(step, time, collective_seconds=row, optimizer_seconds=[0.001] * len(row), **values)
        )
    return found


def usual(ranks=2, steps=600, seed=0, scale=0.01):
    """Heavy-tailed, as collectives of healthy ranks on busy cores are."""
    noise = np.random.default_rng(seed).lognormal(0.0, 0.7, (steps, ranks))
    return scale * noise.max(axis=1, keepdims=True) + 0.001 * noise


@pytest.mark.parametrize("ranks", [2, 4, 64])
@pytest.mark.parametrize("seed", range(4))
def test_a_noisy_but_fair_network_is_silent(ranks, seed):
    assert play(usual(ranks, 2000, seed)) == []


def test_bursts_are_silent():
    sharing = usual(steps=2000)
    for begin in range(100, 2000, 300):
        sharing[begin : begin + 40] += 0.2

    assert play(sharing) == []


def test_a_long_wait_now_and_then_is_silent():
    sharing = usual(steps=2000)
    sharing[::10] += 5.0

    assert play(sharing) == []


def test_what_was_slow_from_the_beginning_is_no_change():
    assert play(usual() + 0.2) == []


def test_time_that_a_step_does_not_feel_is_silent():
    sharing = usual(scale=0.0005)
    sharing[SLOW_FROM:] += 0.004

    assert play(sharing) == []


@pytest.mark.parametrize("ranks", [2, 4, 64])
def test_a_slow_link_is_dated_to_the_step_and_names_nobody(ranks):
    sharing = usual(ranks)
    sharing[SLOW_FROM:] += 0.2
    sharing[SLOW_FROM:, -1] += 0.03
    (finding,) = play(sharing)

    assert (finding.kind, finding.rank, finding.subject) == ("straggler", None, None)
    assert finding.first_step == SLOW_FROM
    assert finding.evidence["leaves_last"] == ranks - 1
    assert finding.evidence["leaves_later_seconds"] == pytest.approx(0.03, rel=0.2)


def test_one_rank_has_no_network():
    detector = Congestion()

    assert play(usual(1), detector=detector) == []
    assert detector.status().state == "not_checked"


def test_the_rank_that_is_late_because_its_data_was_is_no_straggler():
    """The sender leaves early: its buffers have taken what it sends. The receiver comes to the next collective late."""
    sharing = usual()
    sharing[SLOW_FROM:] += 0.2
    sharing[SLOW_FROM:, 0] += 0.08

    assert play(sharing, detector=Straggler()) == []


def test_a_rank_that_leaves_with_the_others_and_comes_late_is_one():
    detector, found = Straggler(), []
    for step, row in enumerate(usual(steps=300)):
        values = {"collective_seconds": row, "optimizer_seconds": [0.001] * 2, "step_seconds": [0.2] * 2}
        found += detector.update(Reading.of(step, arrival_lateness=[0.08, 0.0], **values))

    assert [finding.subject for finding in found] == [0]
