"""A beat says where the job is; standing still is written down a few times and no more."""

import os
import threading

import pytest
from torchvitals.hooks.beat import Heartbeat, python_stacks, resident_bytes
from torchvitals.signals.records import Beat, Stacks


class Job:
    def __init__(self):
        self.step = 0
        self.phase = "forward"
        self.activity = 0
        self.busy = False
        self.records = []
        self.written = threading.Event()

    def write(self, record):
        self.records.append(record)
        self.written.set()

    def of(self, kind):
        return [record for record in self.records if isinstance(record, kind)]


class Counters:
    def __init__(self, last=()):
        self._last = list(last)
        self.asked = threading.Event()

    def sequences(self):
        return {"0": 7}

    def last(self):
        self.asked.set()
        return self._last


class Time:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_a_standstill_is_beaten_faster_for_a_while():
    job, time = Job(), Time()
    heart = Heartbeat(job, collectives=Counters(), clock=time, monotonic=time)
    pauses = []
    for _ in range(16):
        heart.beat()
        pauses.append(heart.pause())
        time.now += pauses[-1]

    assert pauses == [1.0, 1.0, *[0.5] * 14]
    time.now += 5.0
    heart.beat()

    assert heart.pause() == 1.0


@pytest.fixture
def still():
    job, time = Job(), Time()
    heart = Heartbeat(job, collectives=Counters(), clock=lambda: time.now + 1e9, monotonic=time)

    def seconds(count, steps_per_second=0):
        for _ in range(count):
            time.now += 1.0
            job.step += steps_per_second
            heart.beat()

    return job, heart, seconds


def test_a_beat_says_step_phase_sequences_and_memory(still):
    job, _, seconds = still

    seconds(1, steps_per_second=3)

    (beat,) = job.of(Beat)
    assert (beat.step, beat.phase, beat.sequences) == (3, "forward", {"0": 7})
    assert (beat.time, beat.monotonic) == (1e9 + 101.0, 101.0)
    assert beat.rss_bytes > 1 << 20


def test_a_job_that_moves_is_never_photographed(still):
    job, _, seconds = still

    seconds(100, steps_per_second=1)

    assert job.of(Stacks) == []


def test_a_replay_of_our_own_is_no_standstill_of_the_job(still):
    job, _, seconds = still
    seconds(3, steps_per_second=2)
    job.busy = True
    seconds(30)
    assert job.of(Stacks) == []
    assert job.of(Beat)[-1].activity > job.of(Beat)[-2].activity

    job.busy = False
    seconds(3)

    assert len(job.of(Stacks)) == 1


def test_stacks_are_written_four_times_per_stall_then_no_more(still):
    job, _, seconds = still
    seconds(3, steps_per_second=2)
    job.phase = "backward"

    seconds(2)
    assert job.of(Stacks) == []
    seconds(1)
    assert len(job.of(Stacks)) == 1
    side = threading.Thread(target=seconds, args=(100,))
    side.start()
    side.join()

    first, second, _, _ = job.of(Stacks)
    assert first.step == 6
    assert "phase backward" in first.reason
    assert "MainThread" not in first.threads, "the thread that looks leaves itself out"
    assert any("test_stacks_are_written_four_times" in frame for frame in second.threads["MainThread"])


def test_before_the_first_step_a_process_is_silent_until_it_stands_still(still, monkeypatch):
    job, heart, seconds = still
    monkeypatch.setenv("RANK", "1")
    heart.start(quietly=True)
    heart.stop()
    for _ in range(30):
        job.activity += 1
        seconds(1)
    assert job.of(Beat) == []

    seconds(15)
    assert len(job.of(Beat)) >= 4
    assert job.of(Stacks)


def test_a_process_of_which_nobody_knows_the_rank_stays_silent(still, monkeypatch):
    job, heart, seconds = still
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setattr(Counters, "sequences", lambda _: {})
    heart.start(quietly=True)
    heart.stop()

    seconds(60)
    assert job.of(Beat) == []


def test_a_louder_start_ends_the_silence(still):
    job, heart, seconds = still
    heart.start(quietly=True)
    heart.start()
    heart.start(quietly=True)
    heart.stop()

    seconds(1)
    assert job.of(Beat)


def test_a_long_evaluation_moves_though_its_step_does_not(still):
    job, _, seconds = still
    seconds(3, steps_per_second=2)
    for _ in range(30):
        job.activity += 2
        seconds(3)

    assert job.of(Stacks) == []
    assert job.of(Beat)[-1].activity == 60


def test_a_slow_job_gets_four_of_its_own_steps(still):
    job, heart, seconds = still
    for _ in range(20):
        seconds(9)
        seconds(1, steps_per_second=1)
    stalls = len(job.of(Stacks))

    seconds(39)

    assert heart.limit() == pytest.approx(40.0, rel=0.1)
    assert len(job.of(Stacks)) == stalls


def test_a_job_that_stalls_for_ever_again_has_a_bounded_number_of_stacks(still):
    job, heart, seconds = still
    heart._factor = 0.0
    for _ in range(50):
        seconds(20)
        seconds(1, steps_per_second=1)

    assert len(job.of(Stacks)) == 40


def test_the_newest_collectives_are_told_once_per_stall():
    job, time = Job(), Time()
    counters = Counters([{"operation": "gloo:all_reduce"}])
    heart = Heartbeat(job, collectives=counters, monotonic=time)
    for _ in range(30):
        time.now += 1.0
        heart.beat()
    for thread in threading.enumerate():
        if thread.name == "torchvitals-fr":
            thread.join()

    (told,) = [record for record in job.of(Stacks) if record.collectives]
    assert told.collectives == [{"operation": "gloo:all_reduce"}]


def test_the_thread_beats_and_stops_at_once():
    job = Job()
    heart = Heartbeat(job, collectives=Counters(), interval=0.01)
    heart.start()
    heart.start()

    assert job.written.wait(30)
    assert sum(thread.name == "torchvitals-beat" for thread in threading.enumerate()) == 1

    heart.stop()
    heart.stop()
    assert all(thread.name != "torchvitals-beat" for thread in threading.enumerate())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_no_heart_and_may_stop_it():
    job = Job()
    heart = Heartbeat(job, collectives=Counters(), interval=0.01)
    heart.start()
    pid = os.fork()
    if pid == 0:
        heart.stop()
        os._exit(0 if all(thread.name != "torchvitals-beat" for thread in threading.enumerate()) else 1)
    _, status = os.waitpid(pid, 0)
    heart.stop()

    assert os.waitstatus_to_exitcode(status) == 0


def test_stacks_name_threads_and_put_the_innermost_last():
    frame = __import__("sys")._getframe()

    stacks = python_stacks({1: frame, threading.get_ident(): frame})

    assert set(stacks) == {"thread 1", "MainThread"}
    assert stacks["MainThread"][-1].endswith("test_stacks_name_threads_and_put_the_innermost_last")


def test_memory_is_zero_where_it_cannot_be_read(tmp_path):
    assert resident_bytes(tmp_path / "statm") == 0
    (tmp_path / "statm").write_text("1 2 3")
    assert resident_bytes(tmp_path / "statm") == 2 * os.sysconf("SC_PAGE_SIZE")
