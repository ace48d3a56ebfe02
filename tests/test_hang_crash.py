"""A standstill is told within its limit, and only when nothing healthy explains it; a death once, by its root."""

import pytest
from torchvitals.detectors.crash import Crash
from torchvitals.detectors.hang import Hang
from torchvitals.signals.records import LAUNCHER_RANK, Beat, Event, Hello, Stacks, Step


def hello(rank=0, world=2, incarnation=0, pid=None):
    pid = 100 + rank if pid is None else pid
    return Hello(run="r", rank=rank, world_size=world, pid=pid, incarnation=incarnation)


class Ranks:
    """Beats of some ranks, second by second; a rank moves unless it was stopped."""

    def __init__(self, world=2, detector=None):
        self.detector = detector or Hang()
        self.world = world
        self.now = 0.0
        self.step = [0] * world
        self.activity = [0] * world
        self.issued = [0] * world
        self.phase = ["backward"] * world
        self.stopped = [False] * world
        self.mute = [False] * world
        self.found = []

    def run(self, seconds, steps=4):
        for _ in range(seconds):
            self.now += 1.0
            for rank in range(self.world):
                if not self.stopped[rank]:
                    self.step[rank] += steps
                    self.activity[rank] += 4 * steps
                    self.issued[rank] += steps
                if not self.mute[rank]:
                    self.beat(rank)
        return self.found

    def beat(self, rank):
        beat = Beat(
            1e9 + self.now,
            self.now,
            self.step[rank],
            self.phase[rank],
            {"0": self.issued[rank]},
            0,
            self.activity[rank],
        )
        self.tell(rank, beat)

    def tell(self, rank, record):
        self.found += [(self.now, finding) for finding in self.detector.observe(hello(rank, self.world), record)]

    def stop(self, *ranks, phase="backward"):
        for rank in ranks or range(self.world):
            self.stopped[rank] = True
            self.phase[rank] = phase


class TestHang:
    def test_a_job_that_moves_is_silent(self):
        assert Ranks().run(2000) == []

    def test_a_standstill_is_told_after_five_seconds_once(self):
        ranks = Ranks()
        ranks.run(20)
        ranks.stop()
        ((when, finding),) = ranks.run(300)

        assert when <= 20 + 1 + 5 + 1
        assert finding.rank is None
        assert finding.step == 80

    def test_the_rank_that_issued_fewer_is_the_culprit(self):
        ranks = Ranks()
        ranks.run(20)
        ranks.stop()
        ranks.issued[0] += 1
        ((_, finding),) = ranks.run(20)

        assert finding.rank == 1
        assert finding.evidence["culprits"] == [1]

    def test_the_rank_in_the_loader_is_the_culprit(self):
        ranks = Ranks(4)
        ranks.run(20)
        ranks.stop()
        ranks.phase[2] = "data"
        ((_, finding),) = ranks.run(20)

        assert finding.rank == 2

    def test_a_slow_job_gets_five_of_its_own_steps(self):
        ranks = Ranks()
        for _ in range(10):
            ranks.stop()
            ranks.run(9)
            ranks.stopped = [False, False]
            ranks.run(1, steps=1)
        ranks.stop()

        assert ranks.run(45) == []
        assert len(ranks.run(10)) == 1

    @pytest.mark.parametrize("phase", ["eval", "idle", "init"])
    def test_rank_0_busy_with_its_own_work_is_no_hang(self, phase):
        ranks = Ranks()
        ranks.run(20)
        ranks.stop(0, phase=phase)
        ranks.stop(1, phase="backward")

        assert ranks.run(300) == []

    def test_an_evaluation_whose_batches_flow_is_no_hang_however_long(self):
        ranks = Ranks()
        ranks.run(20)
        ranks.stop()
        ranks.phase[0] = "data"
        for _ in range(2000):
            ranks.activity[0] += 7
            ranks.run(1)

        assert ranks.found == []

    def test_a_job_that_rests_after_its_work_is_no_hang(self):
        ranks = Ranks(1)
        ranks.run(20)
        ranks.stop(phase="idle")

        assert ranks.run(5000) == []

    def test_the_first_step_may_take_minutes(self):
        ranks = Ranks()
        ranks.stop(phase="forward")

        assert ranks.run(300) == []

    def test_a_compiled_model_may_compile_again(self):
        ranks = Ranks()
        for rank in (0, 1):
            ranks.beat(rank)
            ranks.tell(rank, Event(0.0, 0, "facts", {"models": [{"compiled": True}]}))
        ranks.run(20)
        ranks.stop(phase="forward")

        assert ranks.run(300) == []

    def asleep(self, detector=None, frames=("/job/train.py:44 main",)):
        """Rank 0 shows the same frames twice between steps, four seconds apart, while rank 1 waits in backward."""
        ranks = Ranks(detector=detector)
        ranks.run(20)
        ranks.stop(0, phase="idle")
        ranks.stop(1)
        for _ in range(2):
            ranks.run(4)
            ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", {"MainThread": list(frames)}))
            ranks.tell(0, Stacks(ranks.now, 80, "newest collectives", {}, []))
        return ranks

    def test_a_rank_that_stays_on_a_line_of_its_own_while_the_other_waits_is_told_in_twenty_seconds(self):
        ((when, finding),) = self.asleep().run(300)

        assert when == pytest.approx(41, abs=2)
        assert (finding.rank, finding.name) == (0, "train.py:44")

    def test_a_rank_inside_a_library_may_write_its_checkpoint(self):
        frames = ("/job/train.py:44 main", "/x/site-packages/torch/serialization.py:900 save")

        assert self.asleep(frames=frames).run(300) == []

    def test_a_job_that_somebody_ended_while_it_stood_still_was_hanging(self):
        detector = Hang()
        ranks = self.asleep(detector)
        assert ranks.run(1) == []

        (finding,) = detector.finish([hello(1)])

        assert (finding.rank, finding.first_step) == (0, 80)
        assert detector.finish([]) == []

    def resting(self, frame="/usr/lib/python3.11/subprocess.py:1264 wait", cpu=0.002, seconds=30):
        """One process that shows the same frames twice between steps, and then goes on doing nothing."""
        detector = Hang()
        ranks = Ranks(1, detector=detector)
        ranks.run(20)
        ranks.stop(phase="idle")
        frames = {"MainThread": ["/job/train.py:44 main", frame]}
        for _ in range(2):
            ranks.run(4)
            ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", frames, cpu=cpu))
        assert ranks.run(seconds) == []
        return detector

    def test_a_process_that_somebody_ended_while_it_rested_in_a_library_was_hanging(self):
        (finding,) = self.resting().finish([hello(0)])

        assert (finding.first_step, finding.name) == (80, "train.py:44")
        assert finding.value > finding.threshold

    @pytest.mark.parametrize(
        "how",
        [
            {"cpu": 0.5},
            {"seconds": 5},
            {"frame": "/x/site-packages/torch/serialization.py:900 save"},
        ],
        ids=["it computed", "for a moment", "it saved a checkpoint"],
    )
    def test_a_process_that_somebody_ended_at_work_was_not(self, how):
        assert self.resting(**how).finish([hello(0)]) == []

    def test_a_process_that_went_on_resting_was_not_ended(self):
        assert self.resting().finish([]) == []

    def test_a_rank_that_left_well_was_not_hanging(self):
        detector = Hang()
        ranks = self.asleep(detector)
        ranks.tell(0, Event(1e9 + ranks.now, 80, "exit", {"code": 0}))
        ranks.tell(1, Event(1e9 + ranks.now, 80, "exit", {"code": 0}))

        assert detector.finish([]) == []

    def test_stacks_show_that_an_idle_rank_waits_in_a_collective(self):
        ranks = Ranks()
        ranks.run(20)
        ranks.stop(0, phase="idle")
        ranks.stop(1)
        ranks.run(3)
        frames = ["/job/train.py:44 main", "/x/site-packages/torch/distributed/distributed_c10d.py:3100 all_reduce"]
        last = [{"group": "0", "sequence": 7, "operation": "gloo:all_reduce"}]
        ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", {"MainThread": frames}))
        ranks.tell(0, Stacks(ranks.now, 80, "newest collectives", {}, last))
        ((_, finding),) = ranks.run(20)

        assert finding.name == "train.py:44"
        assert finding.evidence["collectives"] == {0: last}
        assert finding.evidence["stacks"][0] == frames

    def test_a_rank_without_beats_is_the_culprit(self):
        ranks = Ranks()
        ranks.run(20)
        ranks.mute[1] = True
        ranks.stop()
        ((when, finding),) = ranks.run(60)

        assert when <= 38
        assert (finding.rank, finding.evidence["silent"]) == (1, [1])

    def test_a_rank_that_has_ended_leaves_the_others_waiting(self):
        ranks = Ranks()
        ranks.run(20)
        ranks.tell(1, Event(ranks.now, 80, "exit", {"code": 0}))
        ranks.mute[1] = True
        ranks.stop()
        ((_, finding),) = ranks.run(60)

        assert finding.rank == 1
        assert finding.evidence["ended"] == [1]

    def test_a_job_that_ended_well_is_no_hang(self):
        ranks = Ranks()
        ranks.run(20)
        for rank in (0, 1):
            ranks.tell(rank, Event(ranks.now, 80, "exit", {"code": 0}))
        ranks.stop()

        assert ranks.run(60) == []

    def test_a_pause_as_long_as_one_before_is_known(self):
        ranks = Ranks(1)
        ranks.phase = ["data"]
        ranks.run(5)
        ranks.stop(phase="data")
        ranks.run(9)
        told = len(ranks.found) + 1  # and that it was over
        ranks.stopped = [False]
        ranks.run(20)
        ranks.stop(phase="data")
        ranks.run(12)

        assert len(ranks.found) == told

    def test_a_service_without_requests_is_no_hang(self):
        detector = Hang()
        served = Hello(run="r", rank=0, role="serve")

        assert [f for s in range(100) for f in detector.observe(served, Beat(s, s, 9, "forward"))] == []


def exception(time, step=7, kind="ValueError", message="bad label", **more):
    details = {"type": kind, "message": message, "frames": ["/job/train.py:12 main"], **more}
    return Event(time, step, "exception", details)


def leave(time, code=0, step=7, **more):
    return Event(time, step, "exit", {"code": code, **more})


def command(time, code=0, signal=None, oom_kills=0):
    return Event(time, -1, "command_exit", {"code": code, "signal": signal, "oom_kills": oom_kills})


class Run:
    def __init__(self, world=2):
        self.detector = Crash()
        self.world = world
        self.found = []
        for rank in range(world):
            self.tell(rank, Step(6, 9.0, {}))

    def tell(self, rank, *records, incarnation=0):
        who = hello(rank, self.world, incarnation) if rank >= 0 else Hello(run="r", rank=LAUNCHER_RANK)
        for record in records:
            self.found += self.detector.observe(who, record)
        return self

    def finish(self, *gone):
        self.found += self.detector.finish([hello(rank, self.world) for rank in gone])
        return self.found


CLOSED = "[../gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2048"


class TestCrash:
    def test_a_normal_end_is_none(self):
        run = Run().tell(0, leave(10.0)).tell(1, leave(10.0)).tell(-1, command(11.0))

        assert run.finish() == []
        assert run.detector.status().state == "ok"

    def test_an_exception_is_told_with_its_rank_place_and_text_before_the_end(self):
        run = Run().tell(1, exception(10.0), leave(10.1, 1)).tell(0, Beat(13.0, 13.0, 7, "backward"))
        (finding,) = run.found

        assert (finding.rank, finding.step, finding.name) == (1, 7, "train.py:12")
        assert finding.evidence["message"] == "bad label"
        assert run.tell(0, leave(14.0, 1)).finish() == [finding]

    def test_the_first_rank_by_time_is_the_root_and_there_is_one_finding(self):
        run = Run(4)
        for rank, time in ((3, 10.4), (0, 10.3), (2, 10.2), (1, 10.6)):
            run.tell(rank, exception(time, kind=f"Error{rank}"), leave(time + 0.1, 1))
        (finding,) = run.finish()

        assert finding.rank == 2

    def test_an_exception_that_all_ranks_raise_alike_is_nobodys(self):
        run = Run(4)
        for rank, time in ((3, 10.4), (0, 10.3), (2, 10.2), (1, 10.6)):
            run.tell(rank, exception(time), leave(time + 0.1, 1))
        (finding,) = run.finish()

        assert (finding.rank, finding.name) == (None, "train.py:12")

    def test_the_victim_of_a_lost_connection_is_not_the_root(self):
        run = Run().tell(0, exception(10.0, kind="RuntimeError", message=CLOSED), leave(10.0, 1))
        run.tell(1, exception(10.5), leave(10.6, 1))
        (finding,) = run.finish()

        assert finding.rank == 1
        assert finding.evidence["victims"] == [0]

    def test_a_victim_in_the_same_call_has_not_raised_the_same(self):
        run = Run().tell(0, exception(10.0, kind="RuntimeError", message="invalid tensor size"), leave(10.0, 1))
        run.tell(1, exception(10.0, kind="RuntimeError", message=CLOSED), leave(10.1, 1))
        (finding,) = run.finish()

        assert (finding.rank, finding.evidence["victims"]) == (0, [1])

    def test_the_rank_that_was_killed_is_the_root_of_its_peers_exception(self):
        run = Run().tell(0, exception(10.0, kind="RuntimeError", message=CLOSED), leave(10.0, 1))
        run.tell(0, Beat(15.0, 15.0, 7, "idle")).tell(-1, command(16.0, code=1, oom_kills=1))
        assert run.found == []
        (finding,) = run.finish(1)

        assert (finding.rank, finding.evidence["gone"], finding.evidence["oom_kills"]) == (1, True, 1)

    def test_a_parents_report_of_its_childs_death_is_not_the_root(self):
        run = Run().tell(0, exception(10.0, kind="RuntimeError", message=CLOSED), leave(10.0, 1))
        parent = Hello(run="r", rank=0, world_size=1, pid=99)
        for record in (exception(10.2, kind="ChildFailedError", message="rank 1"), leave(10.3, 1)):
            run.found += run.detector.observe(parent, record)
        (finding,) = run.tell(-1, command(16.0, code=1)).finish(1)

        assert (finding.rank, finding.evidence["gone"]) == (1, True)

    def test_a_peer_that_left_well_early_leaves_its_victim_as_the_root(self):
        run = Run().tell(1, leave(9.5)).tell(0, exception(10.0, kind="RuntimeError", message=CLOSED), leave(10.0, 1))
        (finding,) = run.finish()

        assert (finding.rank, finding.evidence["left_well"]) == (0, [1])

    def test_an_exit_code_is_a_crash_with_its_place(self):
        run = Run(1).tell(0, leave(10.0, 3, line="/job/train.py:44 main"))
        (finding,) = run.finish()

        assert (finding.value, finding.name, finding.evidence["exit_code"]) == (3.0, "train.py:44", 3)

    def test_a_fatal_signal_is_placed_where_its_stack_ends(self):
        stack = ["/job/train.py:3 main", "/job/kernel.py:9 fuse", "/usr/lib/python3.11/ctypes/__init__.py:519 at"]
        gone = Event(9.5, -1, "process_gone", {"rank": 0, "pid": 100, "oom_kills": 0, "frames": stack})
        (finding,) = Run(1).tell(-1, gone, command(10.0, code=-11, signal=11)).finish(0)

        assert (finding.name, finding.evidence["signal"]) == ("kernel.py:9", 11)
        assert finding.evidence["frames"] == stack

    def test_sigkill_is_told_with_the_signal_and_the_last_step(self):
        run = Run(1).tell(-1, command(10.0, code=-9, signal=9, oom_kills=1))
        (finding,) = run.finish(0)

        assert (finding.step, finding.evidence["signal"], finding.evidence["oom_kills"]) == (7, 9, 1)

    @pytest.mark.parametrize(("code", "signal"), [(137, None), (-9, None), (-9, "SIGKILL"), (137, 9)])
    def test_a_kill_is_read_from_code_or_signal(self, code, signal):
        (finding,) = Run(1).tell(-1, command(10.0, code=code, signal=signal)).finish(0)

        assert finding.evidence["signal"] == 9

    def test_gone_without_a_launcher_is_a_crash_too(self):
        (finding,) = Run(1).finish(0)

        assert finding.evidence["gone"]
        assert finding.severity == "critical"

    def test_helpers_that_are_gone_after_a_command_that_ended_well_are_none(self):
        assert Run(1).tell(-1, command(10.0, code=0)).finish(0) == []

    def test_an_interrupt_is_none(self):
        interrupt = exception(10.0, kind="KeyboardInterrupt", message="")
        run = (
            Run().tell(0, interrupt, leave(10.0, 1)).tell(1, interrupt, leave(10.0, 1)).tell(-1, command(11.0, code=1))
        )

        assert run.finish() == []

    @pytest.mark.parametrize(("code", "signal"), [(-2, 2), (130, None), (-2, "SIGINT")])
    def test_a_command_ended_by_ctrl_c_is_none(self, code, signal):
        assert Run().tell(-1, command(11.0, code=code, signal=signal)).finish(0, 1) == []

    def test_a_run_that_was_told_to_end_is_information(self):
        (finding,) = Run(1).tell(-1, command(11.0, code=-15, signal=15)).finish(0)

        assert finding.severity == "info"

    @pytest.mark.parametrize(("number", "severities"), [(2, []), (15, ["info"])])
    def test_ranks_that_a_supervisor_ends_because_somebody_asked_it_to(self, number, severities):
        asked = Event(11.0, -1, "command_exit", {"code": 1, "signal": None, "stopped_by": number})
        found = Run().tell(-1, asked).finish(0, 1)

        assert [finding.severity for finding in found] == severities

    def test_a_job_that_saves_and_ends_well_when_asked_to_is_none(self):
        asked = Event(11.0, -1, "command_exit", {"code": 0, "signal": None, "stopped_by": 15})

        assert Run(1).tell(0, leave(10.0)).tell(-1, asked).finish() == []

    def test_a_thread_that_died_is_none_when_the_process_ends_well(self):
        run = Run(1).tell(0, exception(10.0, thread="prefetch"), Beat(20.0, 20.0, 9, "data"), leave(30.0))

        assert run.finish() == []

    @pytest.mark.parametrize(("kind", "line"), [("Empty", "data.py:5"), ("ValueError", "train.py:12")])
    def test_who_waited_in_vain_for_a_thread_that_had_died_is_not_where_it_began(self, kind, line):
        died = exception(10.0, 3, "OSError", "shard 7", frames=["/job/data.py:5 feed"], thread="feeder")
        (finding,) = Run(1).tell(0, died, exception(20.0, kind=kind), leave(20.0, 1)).finish()

        assert (finding.name, finding.evidence["thread"]) == (line, "feeder" if kind == "Empty" else "")

    def test_deaths_without_a_word_at_the_same_moment_name_no_rank(self):
        run = Run().tell(0, Beat(10.0, 10.0, 7, "backward")).tell(1, Beat(10.4, 10.4, 7, "backward"))
        (finding,) = run.tell(-1, command(12.0, code=1)).finish(0, 1)

        assert finding.rank is None
        assert finding.evidence["lost"] == [0, 1]

    def test_each_incarnation_has_its_own_crash(self):
        run = Run().tell(1, exception(10.0), leave(10.0, 1)).tell(0, leave(10.5, 1))
        run.tell(0, Step(0, 20.0, {}), leave(30.0), incarnation=1).tell(
            1, Step(0, 20.0, {}), leave(30.0), incarnation=1
        )
        (finding,) = run.tell(-1, command(31.0)).finish()

        assert finding.rank == 1

    def test_arguments_that_were_refused_are_no_crash(self):
        assert Run(0).tell(-1, command(3.0, code=2)).finish() == []

    def test_a_command_that_fails_before_anything_trains_is_told(self):
        run = Run(0).tell(-1, command(3.0, code=1))
        (finding,) = run.finish()

        assert finding.evidence["untrained"]
        assert Run(0).tell(-1, command(3.0, code=0)).finish() == []
