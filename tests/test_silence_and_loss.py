"""Hangs and crashes as the launcher sees them: ranks that fall silent, ranks that vanish; and what all ranks do."""

import pytest
from torchvitals.agent.case import Case
from torchvitals.agent.causes.collective_mismatch import CollectiveMismatch
from torchvitals.agent.causes.exception import UncaughtException
from torchvitals.agent.causes.frozen_process import FrozenProcess
from torchvitals.agent.causes.stuck_code import StuckCode
from torchvitals.agent.exit_codes import Ended, ended
from torchvitals.agent.history import History
from torchvitals.agent.standstill_words import duration_note, severity_of
from torchvitals.detectors.hang import Hang
from torchvitals.signals.records import LAUNCHER_RANK, Beat, Event, Hello, Stacks, Step

from tests.test_hang_crash import CLOSED, Ranks, Run, command, exception, hello, leave

LAUNCHER = Hello(run="r", rank=LAUNCHER_RANK, role="launcher")
GLOO = "/x/site-packages/torch/distributed/distributed_c10d.py:3100 all_reduce"


class Watched(Ranks):
    """Ranks beside whose beats the launcher's are heard."""

    def run(self, seconds, steps=4):
        for _ in range(seconds):
            super().run(1, steps)
            self.launcher(Beat(1e9 + self.now, self.now, -1, "launcher"))
        return self.found

    def launcher(self, record):
        self.found += [(self.now, finding) for finding in self.detector.observe(LAUNCHER, record)]

    def unheard(self, rank, **seen):
        details = {"rank": rank, "pid": 100 + rank, "seconds": 3.0, "state": "S", "cpu_seconds": 0.0, **seen}
        self.launcher(Event(1e9 + self.now, -1, "unheard", details))


def silenced(world=2, phase="backward", **seen):
    """Rank 1 (or the only one) stops beating after 20 s; the launcher sees it three seconds later."""
    ranks = Watched(world)
    ranks.run(20)
    ranks.stop(phase="backward")
    silent = world - 1
    ranks.mute[silent] = True
    ranks.phase[silent] = phase
    ranks.run(3)
    if seen is not None:
        ranks.unheard(silent, **seen)
    ranks.run(60)
    return ranks


class TestSilence:
    @pytest.mark.parametrize("world", [1, 2, 4])
    @pytest.mark.parametrize("seen", [{"state": "T"}, {"state": "S"}, {"state": "R", "cpu_seconds": 3.0}])
    def test_a_rank_that_cannot_even_beat_is_told_within_five_seconds(self, world, seen):
        ((when, finding),) = silenced(world, **seen).found

        assert when <= 20 + 5
        assert finding.evidence["silent"] == [world - 1]
        assert finding.rank == world - 1

    def test_a_process_that_gets_no_processor_lives_more_slowly(self):
        ranks = Watched(1)
        ranks.run(20)
        ranks.stop(phase="backward")
        ranks.mute[0] = True
        ranks.run(3)
        ranks.unheard(0, state="R", cpu_seconds=0.15)  # runnable, with a twentieth of a core

        assert ranks.run(40) == []
        assert ranks.run(80) != []

    def test_native_code_that_computes_between_steps_has_time(self):
        ((when, _),) = silenced(2, state="R", cpu_seconds=3.0).found
        assert when <= 25
        ranks = Watched(2)
        ranks.run(20)
        ranks.phase = ["idle", "idle"]
        ranks.run(1)
        ranks.stop(phase="idle")
        ranks.mute[1] = True
        ranks.run(3)
        ranks.unheard(1, state="R", cpu_seconds=3.0)

        assert ranks.run(14) == []

    def test_a_suspended_machine_is_no_silence(self):
        ranks = Watched(2)
        ranks.run(20)
        ranks.now += 3600.0
        ranks.run(20)

        assert ranks.found == []

    def test_clocks_of_hosts_that_differ_are_no_silence(self):
        ranks = Watched(2)
        for _ in range(60):
            ranks.run(1)
            for rank in (0, 1):
                late = Beat(
                    1e9 + ranks.now - 30.0 * rank, ranks.now, ranks.step[rank], "forward", {}, 0, int(ranks.now)
                )
                ranks.tell(rank, late)

        assert ranks.found == []

    def test_launchers_of_two_hosts_do_not_count_time_twice(self):
        ranks = Watched(2)
        other = Hello(run="r", rank=LAUNCHER_RANK, role="launcher", host="other", pid=9)
        for _ in range(20):
            ranks.run(1)
            ranks.detector.observe(other, Beat(1e9 + ranks.now, 5000.0 + ranks.now, -1, "launcher"))
        ranks.mute[1] = True
        ranks.stop()
        for _ in range(3):
            ranks.run(1)
            assert ranks.detector.observe(other, Beat(1e9 + ranks.now, 5000.0 + ranks.now, -1, "launcher")) == []

        assert ranks.found == []

    def test_the_steps_of_a_silent_rank_are_known_from_its_records(self):
        ranks = Watched(1)
        ranks.run(20)
        ranks.tell(0, Step(90, ranks.now, {}))
        ranks.mute[0] = True
        ranks.run(3)
        ranks.unheard(0, state="T")
        ((_, finding),) = ranks.run(10)

        assert finding.first_step == 91

    def test_a_rank_that_is_gone_is_a_crash_and_no_hang(self):
        ranks = Watched(2)
        ranks.run(20)
        ranks.stop()
        ranks.mute[1] = True
        ranks.launcher(Event(1e9 + ranks.now, -1, "process_gone", {"rank": 1, "pid": 101, "oom_kills": 0}))

        assert ranks.run(60) == []


class TestStandstill:
    def stopped(self, phase, waits="", cpu=-1.0, frames=("/job/train.py:44 main",), world=1):
        ranks = Ranks(world)
        ranks.run(20)
        ranks.stop(0, phase=phase)
        ranks.run(3)
        ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", {"MainThread": list(frames)}, waits=waits, cpu=cpu))
        return ranks

    def test_a_deadlock_of_threads_between_steps_is_told_within_five_seconds(self):
        ((when, finding),) = self.stopped("idle", waits="queue.py:171 get", cpu=0.0).run(30)

        assert when <= 25
        assert finding.evidence["deadlocked"] == [0]

    @pytest.mark.parametrize("evidence", [{"waits": ""}, {"waits": "queue.py:171 get", "cpu": 0.9}, {"waits": "x"}])
    def test_work_between_steps_is_none(self, evidence):
        assert self.stopped("idle", **evidence).run(300) == []

    def test_the_first_batch_of_an_epoch_has_two_minutes(self):
        ranks = self.stopped("load")
        assert ranks.run(100) == []
        assert len(ranks.run(30)) == 1

    def test_a_batch_in_the_middle_of_an_epoch_has_not(self):
        ((when, _),) = self.stopped("data").run(100)

        assert when <= 25

    def test_the_stack_of_a_compiled_model_that_does_not_compile_counts(self):
        ranks = Ranks(1)
        ranks.run(1)
        ranks.tell(0, Event(0.0, 0, "facts", {"models": [{"compiled": True}]}))
        ranks.run(20)
        ranks.stop(phase="forward")
        ranks.run(3)
        ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", {"MainThread": ["/job/train.py:44 main"]}))

        assert len(ranks.run(30)) == 1

    def test_ranks_that_wait_for_one_that_never_came_are_told_after_a_minute(self):
        ranks = Ranks(4)
        for second in range(90):
            for rank in range(3):
                ranks.now = float(second)
                ranks.step = [0] * 4
                ranks.phase = ["init"] * 4
                ranks.beat(rank)
                if second == 5:
                    frames = ["/job/train.py:9 main", "/x/torch/distributed/rendezvous.py:100 _create_c10d_store"]
                    ranks.tell(rank, Stacks(5.0, 0, "nothing moved", {"MainThread": frames}))
        ((when, finding),) = ranks.found

        assert 60 <= when <= 62
        assert (finding.rank, finding.evidence["absent"]) == (3, [3])


class TestBlocked:
    def looked_at(self, *frames, cpu, looks=3):
        """Rank 0 between steps, seen on the same frames three seconds apart, while rank 1 waits in its backward."""
        ranks = Ranks(2)
        ranks.run(20)
        ranks.stop(0, phase="idle")
        ranks.stop(1)
        for _ in range(looks):
            ranks.run(3)
            ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", {"MainThread": list(frames)}, cpu=cpu))
        return ranks.run(60)

    def test_a_rank_that_sleeps_on_a_line_of_its_own(self):
        assert len(self.looked_at("/job/train.py:44 main", cpu=0.0)) == 1

    def test_a_computation_is_looked_at_more_often(self):
        assert self.looked_at("/job/train.py:44 main", cpu=1.0) == []
        assert len(self.looked_at("/job/train.py:44 main", cpu=1.0, looks=4)) == 1

    def test_a_checkpoint_on_its_way_through_a_file_of_the_jobs_own_is_none(self):
        save = "/x/site-packages/torch/serialization.py:900 save"

        assert self.looked_at("/job/train.py:44 main", save, "/job/files.py:9 write", cpu=0.0) == []


class TestGroups:
    def test_most_wait_and_one_is_elsewhere(self):
        ranks = Ranks(8)
        ranks.run(20)
        ranks.stop()
        ranks.phase[3] = "data"
        ranks.run(3)
        entry = {"group": "0", "sequence": 4181, "operation": "nccl:all_reduce", "sizes": [[9]], "retired": False}
        for rank in range(8):
            frames = ["/job/train.py:40 train", GLOO]
            if rank == 3:
                frames = ["/job/train.py:38 train", "/job/data.py:88 collate_fn"]
            ranks.tell(rank, Stacks(ranks.now, 80, "nothing moved", {"MainThread": frames}))
            ranks.tell(rank, Stacks(ranks.now, 80, "newest", {}, [] if rank == 3 else [entry]))
        ((_, finding),) = ranks.run(10)
        most, one = finding.evidence["groups"]

        assert finding.evidence["sentence"] == (
            "7 of 8 ranks wait in all_reduce #4181, rank 3 waits for data in collate_fn, data.py:88"
        )
        assert (most["ranks"], most["waits"], most["where"]) == ([0, 1, 2, 4, 5, 6, 7], True, "train.py:40")
        assert (one["ranks"], one["waits"], one["frames"][-1]) == ([3], False, "/job/data.py:88 collate_fn")
        assert (finding.rank, finding.name) == (3, "data.py:88")

    def test_a_loader_worker_tells_where_it_is(self):
        ranks = Ranks(1)
        ranks.run(20)
        ranks.stop(phase="data")
        ranks.run(3)
        frames = ["/job/train.py:38 train", "/x/torch/utils/data/dataloader.py:1251 _try_get_data"]
        ranks.tell(0, Stacks(ranks.now, 80, "nothing moved", {"MainThread": frames}))
        worker = ["/x/torch/utils/data/_utils/fetch.py:52 fetch", "/job/data.py:17 __getitem__"]
        ranks.tell(0, Stacks(ranks.now, 80, "newest", {"worker 77": worker}))
        ((_, finding),) = ranks.run(10)

        assert finding.evidence["sentence"] == (
            "the process waits for a loader worker that is in __getitem__, data.py:17"
        )


def gone(time, rank=1, oom_kills=0):
    return Event(time, -1, "process_gone", {"rank": rank, "pid": 100 + rank, "oom_kills": oom_kills})


class TestLoss:
    def test_a_kill_is_told_as_soon_as_a_peer_loses_its_connection(self):
        run = Run().tell(0, exception(10.0, kind="RuntimeError", message=CLOSED))
        run.tell(-1, gone(10.3), Beat(11.0, 11.0, -1, "launcher"))
        assert run.found == []
        run.tell(-1, Beat(12.0, 12.0, -1, "launcher"))
        (finding,) = run.found

        assert (finding.rank, finding.evidence["gone"]) == (1, True)
        assert run.finish(1) == [finding]

    def test_a_kill_for_memory_needs_no_other_witness(self):
        run = Run().tell(-1, gone(10.3, oom_kills=1), Beat(12.0, 12.0, -1, "launcher"))
        (finding,) = run.found

        assert (finding.rank, finding.evidence["oom_kills"]) == (1, 1)

    def test_peers_that_stand_in_their_backward_bear_witness(self):
        run = Run().tell(0, Beat(10.0, 10.0, 7, "backward"))
        run.tell(-1, gone(10.3), Beat(11.0, 11.0, -1, "launcher"), Beat(12.0, 12.0, -1, "launcher"))

        assert [finding.rank for finding in run.found] == [1]

    def test_a_rank_that_leaves_without_a_word_while_others_work_on_is_none(self):
        run = Run().tell(0, Beat(10.0, 10.0, 7, "idle")).tell(-1, gone(10.3))
        for second in range(11, 60):
            run.tell(-1, Beat(float(second), float(second), -1, "launcher"))

        assert run.tell(0, leave(60.0)).tell(-1, command(61.0, 0)).finish(1) == []

    def test_who_is_gone_after_somebody_asked_it_to_is_no_crash_before_the_end(self):
        run = Run().tell(-1, Event(9.9, -1, "asked_to_end", {"signal": 15}), gone(10.2, 0), gone(10.2, 1))
        run.tell(-1, Beat(15.0, 15.0, -1, "launcher"))
        assert run.found == []

        asked = Event(16.0, -1, "command_exit", {"code": 1, "signal": None, "stopped_by": 15})
        assert [finding.severity for finding in run.tell(-1, asked).finish(0, 1)] == ["info"]

    def test_ranks_that_the_supervisor_ends_after_an_exception_are_not_its_root(self):
        run = Run().tell(1, exception(10.0), leave(10.1, 1)).tell(-1, gone(10.4, 0), Beat(11.5, 11.5, -1, "launcher"))
        (finding,) = run.found

        assert (finding.rank, finding.evidence["type"]) == (1, "ValueError")

    def test_a_peer_that_left_well_early_is_told_when_both_have_ended(self):
        run = Run().tell(1, leave(9.5)).tell(0, exception(10.0, kind="RuntimeError", message=CLOSED), leave(10.1, 1))
        (finding,) = run.found
        cause = CollectiveMismatch().weigh(case(finding))

        assert finding.evidence["victim"]
        assert (cause.rank, cause.title) == (1, "Rank 1 left before the others had done their last step")
        assert _weight(cause) > _weight(UncaughtException().weigh(case(finding)))

    def test_a_rank_that_torchrun_ended_because_another_was_killed_is_not_the_root(self):
        codes = [{"rank": 0, "pid": 100, "code": -15}, {"rank": 1, "pid": 101, "code": -9}]
        run = Run().tell(-1, gone(10.3, 0), gone(10.3, 1), Beat(12.0, 12.0, -1, "launcher"))
        assert run.found == []
        run.tell(-1, Event(12.1, -1, "children", {"children": codes}))
        (finding,) = run.found

        assert (finding.rank, finding.evidence["signal"]) == (1, 9)

    def test_the_exit_code_that_the_supervisor_saw_is_the_ranks(self):
        children = Event(10.4, -1, "children", {"children": [{"rank": 1, "pid": 101, "code": -6}]})
        run = Run().tell(0, exception(10.0, kind="RuntimeError", message=CLOSED))
        run.tell(-1, gone(10.3), Beat(12.0, 12.0, -1, "launcher"))
        (early,) = run.found

        assert ended(case(early), early) == Ended(None, None)
        assert ended(case(early, children), early) == Ended(-6, 6)
        assert "SIGABRT" in CollectiveMismatch().weigh(case(early, children)).explanation


def case(finding, *events, world=2):
    told = [(LAUNCHER_RANK, event) for event in events]
    return Case(findings=[finding], history=History(), facts={}, events=told, world_size=world)


def _weight(opinion):
    return sum(clue.weight for clue in opinion.clues)


class TestCauses:
    def test_a_stopped_process(self):
        ((_, finding),) = silenced(2, state="T").found
        opinion = FrozenProcess().weigh(case(finding))

        assert opinion.title == "Rank 1 is stopped since step 80"
        assert "kill -CONT" in opinion.remedy
        assert StuckCode().weigh(case(finding)) is None

    def test_native_code_that_keeps_the_interpreters_lock(self):
        ((_, finding),) = silenced(1, state="S").found

        assert (
            FrozenProcess().weigh(case(finding, world=1)).title == "The process is frozen in native code since step 80"
        )

    def test_a_lock_in_the_jobs_own_code(self):
        ((_, finding),) = TestStandstill().stopped("idle", waits="/job/train.py:44 main", cpu=0.0).run(30)
        opinion = StuckCode().weigh(case(finding, world=1))

        assert (opinion.title, opinion.where) == ("The process deadlocked in train.py:44", "train.py:44")
        assert FrozenProcess().weigh(case(finding, world=1)) is None


def test_a_hang_that_was_told_is_told_once_until_it_moves():
    ranks = silenced(2, state="T")
    ranks.mute[1] = False
    ranks.stopped = [False, False]
    ranks.run(20)
    (_, hang), (_, over) = ranks.found

    assert (hang.severity, over.severity, over.evidence["resumed"]) == ("critical", "info", True)
    assert severity_of([hang, over]) == "warning"
    assert severity_of([hang, over, hang]) == severity_of([hang]) == "critical"
    assert duration_note([hang, over]).startswith("It went on by itself after 64 s")
    assert Hang().observe(hello(), Event(0.0, 0, "facts", {})) == []
