"""The launcher sees from outside who is stopped, frozen or gone, and never takes a stranger for one of its own."""

import os

import pytest
from torchvitals.agent.oom import OomKills
from torchvitals.agent.watchman import Watchman
from torchvitals.signals import last_words
from torchvitals.signals.records import Beat, Event, Hello
from torchvitals.signals.spool import SpoolWriter

TICK = os.sysconf("SC_CLK_TCK")


class Place:
    """A run, a made-up ``/proc`` and control group, a watchman and his clock."""

    def __init__(self, root):
        self.root, self.now, self.written = root, 0.0, []
        self.group = root / "cgroup" / "job"
        self.group.mkdir(parents=True)
        self.kills(0)
        self.watchman = Watchman(
            root / "runs" / "r",
            self.written.append,
            kills=lambda pid: OomKills(root / "proc", root / "cgroup", pid=pid),
            proc=root / "proc",
            host="here",
            clock=lambda: 1e9 + self.now,
            monotonic=lambda: self.now,
        )

    def kills(self, count):
        (self.group / "memory.events").write_text(f"oom 0\noom_kill {count}\n")

    def process(self, rank, pid, *, ours=True, role="train", host="here"):
        folder = self.root / "proc" / str(pid)
        folder.mkdir(parents=True)
        (folder / "environ").write_bytes(b"A=1\0TORCHVITALS_RUN=r\0" if ours else b"A=1\0")
        (folder / "cgroup").write_text("0::/job\n")
        self.kernel(pid)
        writer = SpoolWriter(self.root / "runs", Hello(run="r", rank=rank, world_size=2, pid=pid, role=role, host=host))
        writer.write(Beat(1.0, 1.0, 0, "idle"))
        return writer

    def kernel(self, pid, state="S", cpu=0.0, started=5):
        fields = [state, *["0"] * 10, str(int(cpu * TICK)), "0", *["0"] * 6, str(started)]
        (self.root / "proc" / str(pid) / "stat").write_text(f"{pid} (python) {' '.join(fields)}")

    def gone(self, pid):
        (self.root / "proc" / str(pid) / "stat").unlink()

    def look(self, seconds=0.0):
        for _ in range(max(1, round(seconds * 2))):
            self.now += 0.5
            self.watchman.look()
        return self

    def events(self, kind):
        return [record.details for record in self.written if isinstance(record, Event) and record.kind == kind]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_time_goes_on_once_a_second_and_nothing_is_told_of_who_speaks(place):
    writer = place.process(0, 40)
    for second in range(30):
        writer.write(Beat(float(second), float(second), second, "forward"))
        place.look(1)

    assert 28 <= len([record for record in place.written if isinstance(record, Beat)]) <= 31
    assert [record for record in place.written if isinstance(record, Event)] == []


def test_who_is_gone_is_told_once_with_the_kills_in_its_own_group(place):
    place.process(1, 41)
    place.look(2)
    place.kills(1)
    place.gone(41)
    place.look(5)

    assert place.events("process_gone") == [{"rank": 1, "pid": 41, "oom_kills": 1}]


def test_the_stack_of_a_fatal_signal_is_told_with_the_death_even_when_the_command_ends_with_it(place):
    writer = place.process(0, 41)
    place.look(1)
    (writer.path / last_words.NAME).write_text(
        "Fatal Python error: Segmentation fault\n\n"
        "Thread 0x01 (most recent call first):\n"
        '  File "/lib/threading.py", line 324 in wait\n\n'
        "Current thread 0x02 (most recent call first):\n"
        '  File "/job/kernel.py", line 9 in fuse\n  File "/job/train.py", line 3 in <module>\n\n'
        "Extension modules: numpy (total: 1)\n"
    )
    place.gone(41)
    place.watchman.stop()

    (told,) = place.events("process_gone")
    assert told["frames"] == ["/job/train.py:3 <module>", "/job/kernel.py:9 fuse"]


def test_who_died_between_two_looks_is_told_by_what_it_left(place):
    quiet, writer = place.process(0, 41), place.process(1, 42)
    (writer.path / last_words.NAME).write_text('Current thread 0x02:\n  File "/job/train.py", line 3 in <module>\n')
    assert quiet.path.exists()
    place.gone(41)
    place.gone(42)
    place.watchman.stop()

    assert [(told["rank"], told["frames"]) for told in place.events("process_gone")] == [
        (1, ["/job/train.py:3 <module>"])
    ]


@pytest.mark.parametrize("change", [{"state": "Z"}, {"started": 99}])
def test_a_dead_child_and_a_number_given_to_another_are_gone(place, change):
    place.process(1, 41)
    place.look(1)
    place.kernel(41, **change)
    place.look(1)

    assert len(place.events("process_gone")) == 1


def test_a_process_of_another_name_space_with_the_same_number_is_not_watched(place):
    place.process(1, 41, ours=False)
    place.look(1)
    place.gone(41)
    place.look(10)

    assert [record for record in place.written if isinstance(record, Event)] == []


def test_a_process_of_another_host_with_the_same_number_is_not_watched(place):
    place.process(1, 41, host="there")
    place.look(1)
    place.gone(41)
    place.look(10)

    assert [record for record in place.written if isinstance(record, Event)] == []


def test_who_is_silent_is_told_with_what_the_kernel_sees_of_it_a_few_times(place):
    place.process(0, 40)
    place.look(1)
    place.kernel(40, state="T", cpu=1.5)
    place.look(120)
    told = place.events("unheard")

    assert [event["seconds"] for event in told] == [3.0, 6.0, 12.0, 24.0]
    assert told[0] == {"rank": 0, "pid": 40, "seconds": 3.0, "state": "T", "cpu_seconds": 1.5}


def test_a_service_without_requests_may_be_silent(place):
    place.process(0, 40, role="serve")
    place.look(60)

    assert place.events("unheard") == []


def test_who_asked_it_to_end_is_told(place):
    place.watchman.asked.append(15)
    place.look(2)

    assert place.events("asked_to_end") == [{"signal": 15}]


def test_a_machine_without_proc_is_watched_in_time_only(tmp_path):
    place = Place(tmp_path)
    SpoolWriter(tmp_path / "runs", Hello(run="r", rank=0, pid=40)).write(Beat(1.0, 1.0, 0, "idle"))
    place.look(10)

    assert [record for record in place.written if isinstance(record, Event)] == []
