"""What is seen of a job that stands still: a wait without an end, workers' stacks, CPU time, exit codes of children."""

import multiprocessing
import os
import queue
import sys
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import torch
from torchvitals.hooks import supervisors, worker_stacks
from torchvitals.hooks.standstill import Effort, children, cpu_seconds, deadlocked, waits_forever
from torchvitals.hooks.worker_stacks import WorkerStacks
from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import LAUNCHER_RANK, Event

from tests.waiting import eventually


def wait_for_a_lock(lock):
    lock.acquire()


def use_a_lock(lock):
    with lock:
        pass


class Parked:
    """A thread that waits in ``action`` until :meth:`free` lets it go."""

    def __init__(self, action, free):
        self.free = free
        self.thread = threading.Thread(target=action, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.free()
        self.thread.join(60)

    def place(self, expected):
        """What ``waits_forever`` says of it, once it is where it shall be."""
        return eventually(lambda: expected(waits_forever(sys._current_frames().get(self.thread.ident))) or None)


def held():
    lock = threading.Lock()
    lock.acquire()
    return lock


def anywhere(place):
    return place


class TestWaitsForever:
    def test_a_queue_that_nobody_fills(self):
        waiting = queue.Queue()
        with Parked(waiting.get, lambda: waiting.put(1)) as parked:
            assert parked.place(lambda place: "queue.py" in place and place)

    @pytest.mark.parametrize("action", [wait_for_a_lock, use_a_lock])
    def test_a_lock_that_nobody_releases(self, action):
        lock = held()
        with Parked(lambda: action(lock), lock.release) as parked:
            assert parked.place(anywhere).endswith(action.__name__)

    def test_an_event_that_nobody_sets(self):
        event = threading.Event()
        with Parked(event.wait, event.set) as parked:
            assert "threading.py" in parked.place(anywhere)

    @pytest.mark.parametrize("wait", [lambda e: e.wait(600), lambda e: e.wait(timeout=600.0)])
    def test_a_wait_with_a_limit_is_not_for_ever(self, wait):
        event, seen = threading.Event(), []
        with Parked(lambda: wait(event), event.set) as parked:
            frame = eventually(lambda: _in(sys._current_frames().get(parked.thread.ident), "wait"))
            seen.append(waits_forever(frame))

        assert seen == [""]

    def test_code_that_runs_waits_for_nobody(self):
        assert waits_forever(sys._getframe()) == ""
        assert waits_forever(None) == ""

    def test_a_thread_at_work_may_still_release_it(self):
        lock, busy = held(), threading.Event()

        def work():
            while not busy.is_set():
                pass

        with Parked(lambda: wait_for_a_lock(lock), lock.release) as parked:
            parked.place(anywhere)
            frames = {1: sys._current_frames()[parked.thread.ident]}
            assert deadlocked(frames, main=1)
            with Parked(work, busy.set) as worker:
                frames[2] = eventually(lambda: _in(sys._current_frames().get(worker.thread.ident), "work"))
                assert deadlocked(frames, main=1) == ""


def _in(frame, name):
    """``frame`` when it or one of its callers is the function ``name``."""
    walk = frame
    while walk is not None and walk.f_code.co_name != name:
        walk = walk.f_back
    return frame if walk is not None else None


class TestEffort:
    def proc(self, root: Path, used: dict[int, int], tree: dict[int, list[int]]) -> Path:
        for pid, ticks in used.items():
            folder = root / str(pid)
            (folder / "task" / str(pid)).mkdir(parents=True, exist_ok=True)
            fields = ["S", *["0"] * 10, str(ticks), "0", *["0"] * 6, "77"]
            (folder / "stat").write_text(f"{pid} (a (strange) name) {' '.join(fields)}")
            (folder / "task" / str(pid) / "children").write_text(" ".join(map(str, tree.get(pid, []))))
        return root

    def test_children_are_counted_with_theirs(self, tmp_path):
        proc = self.proc(tmp_path, {1: 100, 2: 200, 3: 400}, {1: [2], 2: [3]})

        assert list(children(1, proc)) == [2, 3]
        assert cpu_seconds(1, proc) == pytest.approx(700 / os.sysconf("SC_CLK_TCK"))

    def test_the_share_is_counted_from_the_standstill_on(self, tmp_path):
        own, tick = os.getpid(), os.sysconf("SC_CLK_TCK")
        effort = Effort(self.proc(tmp_path, {own: 0}, {}))
        assert effort.share(5.0) is None
        effort.still(10.0)
        effort.still(11.0)
        self.proc(tmp_path, {own: tick}, {})

        assert effort.share(14.0) == pytest.approx(0.25)
        effort.moved()
        assert effort.share(15.0) is None

    def test_without_proc_nothing_is_claimed(self, tmp_path):
        effort = Effort(tmp_path / "nowhere")
        effort.still(1.0)

        assert effort.share(2.0) is None


class Slow(torch.utils.data.Dataset):
    def __init__(self, gate):
        self.gate = gate

    def __len__(self):
        return 4

    def __getitem__(self, index):
        self.gate.wait()
        return torch.ones(2)


class TestWorkers:
    @pytest.mark.skipif(not worker_stacks.ASKING, reason="no real-time signals here")
    def test_a_forked_loader_worker_shows_where_it_waits(self):
        context = multiprocessing.get_context("fork")
        gate, workers, other = context.Event(), WorkerStacks(), WorkerStacks()
        assert workers.arm()
        assert other.arm(), "a second monitor of this process takes nothing from the first"
        loader = torch.utils.data.DataLoader(Slow(gate), num_workers=1, multiprocessing_context=context)
        try:
            batches = iter(loader)
            (frames,) = eventually(lambda: [f for f in workers.ask().values() if "__getitem__" in " ".join(f)])
        finally:
            gate.set()

        assert len(list(batches)) == 4, "and goes on as if nobody had asked"
        assert any(frame.startswith(f"{__file__}:") and frame.endswith("__getitem__") for frame in frames)
        assert not any("test_a_forked" in frame for frame in frames), "the parent's frames are not the worker's"
        workers.disarm()
        other.disarm()

    def test_a_child_that_would_die_of_the_signal_is_never_sent_it(self, monkeypatch):
        monkeypatch.setattr(worker_stacks, "_armed", weakref.WeakSet())  # another test's may not be collected yet
        context = multiprocessing.get_context("fork")
        gate, workers = context.Event(), WorkerStacks()
        child = context.Process(target=gate.wait)
        child.start()  # before anything was armed
        assert workers.arm()
        sent = []
        monkeypatch.setattr(os, "kill", lambda *signal: sent.append(signal))

        assert workers.ask() == {}
        gate.set()
        child.join(60)
        assert (sent, child.exitcode) == ([], 0)
        workers.disarm()

    def test_without_what_it_needs_it_says_so(self, monkeypatch):
        monkeypatch.setattr(worker_stacks, "ASKING", 0)

        assert not WorkerStacks().arm()
        assert WorkerStacks().ask() == {}

    def test_processes_that_multiprocessing_does_not_list_are_left_alone(self, monkeypatch):
        monkeypatch.delattr(multiprocessing.process, "_children")

        assert list(worker_stacks._forked()) == []


class TestSupervisors:
    def test_torchruns_report_is_read_first_failure_first(self):
        failures = {
            0: SimpleNamespace(pid=11, exitcode=-15, timestamp=200),
            1: SimpleNamespace(pid=12, exitcode=-9, timestamp=100),
        }
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        error = ChildFailedError.__new__(ChildFailedError)
        error.failures = failures

        assert supervisors.is_report(ChildFailedError)
        assert supervisors.children_of(error) == [
            {"rank": 1, "pid": 12, "code": -9},
            {"rank": 0, "pid": 11, "code": -15},
        ]

    def test_spawns_report_is_read(self):
        from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException

        exited = ProcessExitedException("gone", error_index=1, error_pid=7, exit_code=3)
        raised = ProcessRaisedException("raised", error_index=0, error_pid=8)

        assert supervisors.children_of(exited) == [{"rank": 1, "pid": 7, "code": 3}]
        assert supervisors.children_of(raised) == [{"rank": 0, "pid": 8, "code": 1}]

    @pytest.mark.parametrize("error", [ValueError("x"), SimpleNamespace(failures={0: object()}), SimpleNamespace()])
    def test_a_torch_that_names_its_fields_otherwise_tells_nothing(self, error):
        assert supervisors.children_of(error) == []

    def test_it_is_written_under_the_launchers_rank(self, tmp_path, monkeypatch):
        from torch.multiprocessing.spawn import ProcessExitedException

        error = ProcessExitedException("gone", error_index=1, error_pid=7, exit_code=-9)
        monkeypatch.delenv("TORCHVITALS_RUN", raising=False)
        assert not supervisors.report(error, Event(1.0, -1, "children"))
        monkeypatch.setenv("TORCHVITALS_RUN", "r")
        monkeypatch.setenv("TORCHVITALS_DIR", str(tmp_path))
        assert supervisors.report(error, Event(1.0, -1, "children"))
        hello, entry = RunReader(tmp_path / "r").read()

        assert hello.hello.rank == LAUNCHER_RANK
        assert msgspec.to_builtins(entry.record.details) == {"children": [{"rank": 1, "pid": 7, "code": -9}]}
