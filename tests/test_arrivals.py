"""When ranks came to their collectives: read alike by all, matched by number, whatever their clocks say."""

import json

import numpy as np
import pytest
from torchvitals.agent.clocks import offsets
from torchvitals.agent.meetings import LATENESS, SHARING, Meetings
from torchvitals.hooks import arrivals
from torchvitals.hooks.arrivals import DENSEST, ArrivalTimes, created
from torchvitals.hooks.recorder import Recorder
from torchvitals.signals.records import Arrivals, Event, Step, pack_integers, unpack_integers


def entry(number, moment, group="0", *, p2p=False):
    return {
        "collective_seq_id": number, "input_dtypes": ["Float"], "input_sizes": [[10]], "is_p2p": p2p, "op_id": number,
        "process_group": [group, "default_pg"], "profiling_name": "gloo:all_reduce", "retired": True,
        "time_created_ns": moment, "time_discovered_started_ns": 0,
    }  # fmt: skip


def dumped(*entries):
    return json.dumps({"entries": list(entries), "version": "2.10"}, separators=(",", ":")).encode()


def test_entries_are_found_by_group_and_number():
    dump = dumped(entry(1, 100), entry(2, 200), entry(1, 150, group="7"), entry(9, 300, p2p=True), entry(3, 0))

    assert created(dump) == {"0": {1: 100, 2: 200}, "7": {1: 150}}


def test_another_order_of_keys_is_read_as_well():
    backwards = [dict(reversed(entry(number, 10 * number).items())) for number in (1, 2)]

    assert created(dumped(*backwards)) == {"0": {1: 10, 2: 20}}


def test_no_recorder_is_not_an_empty_one():
    assert created(b"") is None
    assert created(dumped()) == {}


@pytest.fixture
def written(monkeypatch, tmp_path):
    """An ``ArrivalTimes`` over a dump that grows by two collectives per step, and what it writes."""

    class Watched:
        def __init__(self):
            self.records = []
            self.entries = []
            self.recorder = Recorder(tmp_path)
            monkeypatch.setattr(self.recorder, "write", self.records.append)
            self.times = ArrivalTimes(self.recorder, dump=lambda: dumped(*self.entries))

        def train(self, start, end):
            for step in range(start, end):
                self.entries += [entry(2 * step + i, 1000 * step + i + 1) for i in (0, 1)]
                self.times.step(step + 1)

    monkeypatch.setattr(arrivals, "grouped", lambda: True)
    monkeypatch.setattr(arrivals, "_members", lambda _group: [])
    return Watched()


def test_what_is_new_is_written_at_steps_that_all_ranks_know(written, monkeypatch):
    monkeypatch.setattr(written.times, "_space", lambda _cost: None)
    written.train(0, 2 * DENSEST + 10)
    first, second = written.records

    assert (first.first, len(unpack_integers(first.created))) == (0, 2 * DENSEST)
    assert (second.first, len(unpack_integers(second.created))) == (2 * DENSEST, 2 * DENSEST)
    assert unpack_integers(second.created)[0] == 1000 * DENSEST + 1
    written.times.close()
    assert len(written.records) == 2  # twenty are too few to be worth it
    written.train(2 * DENSEST + 10, 2 * DENSEST + 20)
    written.times.close()
    assert written.records[-1].first == 4 * DENSEST


def test_what_the_ring_has_lost_is_left_out(written, monkeypatch):
    monkeypatch.setattr(written.times, "_space", lambda _cost: None)
    written.train(0, DENSEST)
    written.entries.clear()
    written.train(DENSEST + 20, 2 * DENSEST)

    assert written.records[1].first == 2 * (DENSEST + 20)


@pytest.mark.parametrize(("cost", "every"), [(0.0, 64), (0.0006, 64), (0.001, 128), (0.035, 4096)])
def test_readings_are_as_rare_as_their_cost_asks(written, cost, every):
    written.times._step_seconds = 0.01
    written.times._space(cost)

    assert written.times.every == every


def test_without_a_recorder_it_is_said_once(monkeypatch, tmp_path):
    recorder, told = Recorder(tmp_path), []
    monkeypatch.setattr(recorder, "write", told.append)
    monkeypatch.setattr(arrivals, "grouped", lambda: True)
    times = ArrivalTimes(recorder, dump=lambda: b"")
    for step in range(1, 5 * DENSEST):
        times.step(step)

    assert [(type(r), r.details["what"]) for r in told] == [(Event, "straggler")]


def test_a_process_alone_reads_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(arrivals, "grouped", lambda: False)

    def never():
        raise AssertionError

    times = ArrivalTimes(Recorder(tmp_path), dump=never)
    for step in range(1, 3 * DENSEST):
        times.step(step)
    times.close()


STEP_SECONDS = 0.1
BEGAN = 1e4


def told(rank, late, *, steps=40, ahead=0.0, skip=(), host="a", ranks=4):
    """What a rank of ``ranks`` says: two collectives a step, ``late`` seconds after the first could come.

    Every step ends ``STEP_SECONDS`` after the one before on all ranks; the clock is ``ahead`` of the true time.
    """
    rows = []
    for step in range(steps):
        end = BEGAN + (step + 1) * STEP_SECONDS + ahead
        values = {"step_seconds": STEP_SECONDS, "data_seconds": late, "optimizer_seconds": 0.01}
        rows.append(Step(step, end + 0.01, values))
    moments = [
        0
        if number in skip
        else int(1e9 * (BEGAN + (number // 2) * STEP_SECONDS + 0.03 + late + ahead + 0.001 * (number % 2)))
        for number in range(2 * steps)
    ]
    return rank, host, rows, Arrivals(0.0, "0", 0, pack_integers(np.array(moments)))


def met(*ranks, count=None):
    """All readings of a crew whose ranks said this, fed rank after rank."""
    meetings = Meetings(count or len(ranks))
    for rank, host, rows, arrivals_of in ranks:
        for row in rows:
            meetings.note_step(rank, host, row)
        meetings.put(rank, arrivals_of)
    return list(meetings.ready(range(count or len(ranks))))


def test_lateness_is_measured_from_when_half_of_the_ranks_were_there():
    readings = met(told(0, 0.0), told(1, 0.002), told(2, 0.04), told(3, 0.003))

    assert [reading.step for reading in readings] == list(range(40))
    assert readings[7].values[LATENESS] == pytest.approx([-0.002, 0.0, 0.038, 0.001], abs=1e-4)
    assert readings[7].values["data_seconds"].tolist() == [0.0, 0.002, 0.04, 0.003]


def test_of_two_ranks_the_first_is_the_measure():
    readings = met(told(0, 0.0), told(1, 0.03))

    assert readings[0].values[LATENESS] == pytest.approx([0.0, 0.03], abs=1e-4)


@pytest.mark.parametrize("ahead", [-7.0, 3.5, 3600.0])
def test_clocks_of_hosts_that_differ_by_seconds_change_nothing(ahead):
    same = met(told(0, 0.0), told(1, 0.002), told(2, 0.04), told(3, 0.003))
    apart = met(
        told(0, 0.0), told(1, 0.002), *(told(r, late, ahead=ahead, host="b") for r, late in ((2, 0.04), (3, 0.003)))
    )

    assert len(apart) == len(same) == 40
    for one, other in zip(apart, same, strict=True):
        assert one.step == other.step
        assert one.values[LATENESS] == pytest.approx(other.values[LATENESS], abs=1e-4)
        assert one.values[SHARING] == pytest.approx(other.values[SHARING], abs=1e-4)


def test_what_is_left_when_all_have_come_is_the_network_s_time_on_every_rank():
    """A step shares from 31 ms on; whoever comes 40 ms later leaves 29 ms to the end."""
    on_time, late = met(told(0, 0.0), told(1, 0.0))[7], met(told(0, 0.0), told(1, 0.04))[7]

    assert on_time.values[SHARING] == pytest.approx([0.069, 0.069], abs=1e-4)
    assert late.values[SHARING] == pytest.approx([0.029, 0.029], abs=1e-4)


def test_a_late_host_is_no_shifted_clock():
    """All ranks of the second host come 40 ms late to every step; its clock is right."""
    readings = met(told(0, 0.0), told(1, 0.0), told(2, 0.04, host="b"), told(3, 0.04, host="b"))

    assert readings[5].values[LATENESS] == pytest.approx([0.0, 0.0, 0.04, 0.04], abs=1e-4)


def test_one_host_has_one_clock_whatever_its_ranks_say_of_the_end_of_a_step():
    steps = np.arange(10)

    assert offsets({0: (steps, 1.0 * steps), 3: (steps, steps + 0.5)}, {0: "a", 3: "a"}) == {0: 0.0, 3: 0.0}


def test_hosts_without_a_common_step_are_taken_at_their_word():
    assert (
        offsets({0: (np.arange(3), np.arange(3.0)), 1: (np.arange(5, 8), np.arange(3.0))}, {0: "a", 1: "b"})[1] == 0.0
    )
    assert offsets({}, {}) == {}


def test_the_group_waits_for_every_member_that_is_awaited():
    meetings = Meetings(3)
    for rank in (0, 1):
        _, host, rows, arrivals_of = told(rank, 0.01 * rank)
        for row in rows:
            meetings.note_step(rank, host, row)
        meetings.put(rank, arrivals_of)

    assert list(meetings.ready([0, 1, 2])) == []
    readings = list(meetings.ready([0, 1]))  # the third is gone
    assert len(readings) == 40
    assert readings[0].present[LATENESS].tolist() == [True, True, False]
    assert list(meetings.ready([0, 1])) == []


def test_members_of_a_group_are_compared_among_themselves():
    parts = [told(0, 0.0), told(2, 0.03)]
    readings = met(
        *((r, h, rows, Arrivals(a.time, "5", a.first, a.created, [0, 2])) for r, h, rows, a in parts), count=4
    )

    assert readings[3].present[LATENESS].tolist() == [True, False, True, False]


def test_collectives_that_one_rank_has_lost_are_not_compared():
    readings = met(told(0, 0.0), told(1, 0.03, skip=range(20)))

    assert [reading.step for reading in readings] == list(range(10, 40))


def test_what_comes_later_goes_on_where_it_ended():
    meetings = Meetings(2)
    for rank in (0, 1):
        _, host, rows, whole = told(rank, 0.02 * rank)
        for row in rows:
            meetings.note_step(rank, host, row)
        moments = unpack_integers(whole.created)
        meetings.put(rank, Arrivals(0.0, "0", 0, pack_integers(moments[:30])))
        meetings.put(rank, Arrivals(0.0, "0", 30, pack_integers(moments[30 : 40 + rank])))
    first = [reading.step for reading in meetings.ready([0, 1])]
    for rank in (0, 1):
        meetings.put(rank, Arrivals(0.0, "0", 50, pack_integers(moments[50:])))  # a gap: the ring had turned over

    assert first == list(range(20))
    assert [reading.step for reading in meetings.ready([0, 1])] == list(range(25, 40))
