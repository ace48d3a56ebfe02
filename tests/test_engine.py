"""What the engine makes of records depends on the records, not on who was read first."""

import random
from pathlib import Path

import numpy as np
import pytest
from made_up import Broken, Died, HighLoss, Unequal, ZeroNorm, goodbye, train, writer
from torchvitals.agent.engine import Engine
from torchvitals.agent.run_state import RunState, merged
from torchvitals.signals.reader import Entry, RunReader
from torchvitals.signals.records import ABSENT, Axis, Digest, Event, Profile, Step, pack_floats, pack_integers

DETECTORS = (HighLoss, ZeroNorm, Unequal)


def streams(directory: Path) -> list[list[Entry]]:
    """The entries of each process of the one run in ``directory``."""
    return [list(process.read()) for process in RunReader(directory / "made-up").processes.values()]


def shuffled(parts: list[list[Entry]], seed: int) -> list[Entry]:
    """The processes at random paces, each in its own order."""
    turns = [number for number, part in enumerate(parts) for _ in part]
    random.Random(seed).shuffle(turns)
    left = [iter(part) for part in parts]
    return [next(left[turn]) for turn in turns]


def play(entries: list[Entry], detectors=DETECTORS, records=(Died,), gone=()) -> Engine:
    engine = Engine("made-up", detectors, records)
    for entry in entries:
        engine.feed(entry)
    engine.finish(gone)
    return engine


def instance(engine: Engine, cls: type, axis: str = "rank"):
    """The detector that a crew made for ``axis``."""
    watches = [watch for (kind, *_), watch in engine.newest._watches.items() if kind == axis]
    return next(detector for watch in watches for detector in watch.detectors if isinstance(detector, cls))


def make_three_ranks(directory: Path) -> None:
    names = Axis("parameter:0", "parameter", ["first", "second"])
    for rank in range(3):
        spool = writer(directory, rank, 3)
        spool.write(names)
        for step in range(40):
            norms = np.array([0.0 if step >= 20 and rank == 2 else 1.0, 1.0])
            spool.write(Profile(step, 1000.0 + step, "parameter:0", {"parameter_gradient_norm": pack_floats(norms)}))
            digest = np.array([step, step + (rank == 1 and step >= 30)])
            spool.write(Digest(step, 1000.0 + step, "parameter:0", "parameter", pack_integers(digest)))
            spool.step(step, 1000.0 + step + rank / 10, {"loss": 50.0 if step >= 25 + rank else 1.0})
        if rank == 1:
            spool.write(Event(1040.0, 40, "exception", {"type": "ValueError"}))
        goodbye(spool, 40)


def test_findings_are_the_same_in_every_interleaving(tmp_path: Path) -> None:
    """Three ranks, forty orders: the same findings in the same order, and the same incidents."""
    make_three_ranks(tmp_path)
    parts = streams(tmp_path)
    expected = [noted.finding for noted in play(list(merged(parts))).noted]

    assert [f.kind for f in expected].count("explosion") == 3
    for seed in range(40):
        assert [noted.finding for noted in play(shuffled(parts, seed)).noted] == expected


def test_incidents_are_the_same_in_every_interleaving(tmp_path: Path) -> None:
    make_three_ranks(tmp_path)
    parts = streams(tmp_path)
    results = []
    for seed in range(8):
        state = RunState("made-up", Engine("made-up", DETECTORS, (Died,)))
        state.feed(shuffled(parts, seed))
        state.finish()
        results.append(state.incidents)

    assert results[0]
    assert all(incidents == results[0] for incidents in results)


def test_findings_get_rank_and_name(tmp_path: Path) -> None:
    make_three_ranks(tmp_path)
    found = {noted.finding.kind: noted.finding for noted in play(list(merged(streams(tmp_path)))).noted}

    assert (found["vanishing"].rank, found["vanishing"].name, found["vanishing"].step) == (2, "first", 20)
    assert (found["desync"].name, found["desync"].step) == ("second", 30)
    assert found["crash"].rank == 1


def test_a_reading_waits_for_every_rank(tmp_path: Path) -> None:
    """The leader's steps are held until the other rank has made them."""
    train(writer(tmp_path, 0, 2), [1.0] * 5)
    train(writer(tmp_path, 1, 2), [1.0] * 5)
    leader, follower = streams(tmp_path)
    engine = Engine("made-up", (HighLoss,), ())
    for entry in leader:
        engine.feed(entry)
    assert not engine.newest.history.last_step

    for entry in follower:
        engine.feed(entry)

    assert instance(engine, HighLoss).steps == [0, 1, 2, 3, 4]
    assert all(present == [True, True] for present in instance(engine, HighLoss).present)


def test_an_ended_rank_is_not_waited_for(tmp_path: Path) -> None:
    train(writer(tmp_path, 0, 2), [1.0] * 6)
    train(writer(tmp_path, 1, 2), [1.0] * 3)
    engine = play(shuffled(streams(tmp_path), 1), (HighLoss,))

    assert instance(engine, HighLoss).present == [[True, True]] * 3 + [[True, False]] * 3


def test_a_rank_that_dies_without_a_word_is_told_by_the_driver(tmp_path: Path) -> None:
    train(writer(tmp_path, 0, 2), [1.0] * 6)
    silent = writer(tmp_path, 1, 2)
    silent.step(0, 1000.0, {"loss": 1.0})
    silent.close()
    engine = Engine("made-up", (HighLoss,), ())
    for part in streams(tmp_path):
        for entry in part:
            engine.feed(entry)
    assert instance(engine, HighLoss).steps == [0]

    engine.ended(engine.processes[1, 4_000_001, "elsewhere"].hello)

    assert instance(engine, HighLoss).steps == [0, 1, 2, 3, 4, 5]


def test_a_rank_that_never_speaks_is_waited_for_only_so_long(tmp_path: Path) -> None:
    spool = writer(tmp_path, 0, 2)
    for step in range(2500):
        spool.step(step, 1000.0 + step, {"loss": 1.0})
    spool.close()
    engine = Engine("made-up", (HighLoss,), ())
    for entry in streams(tmp_path)[0]:
        engine.feed(entry)

    assert len(instance(engine, HighLoss).steps) > 400


def test_a_restarted_job_is_another_crew(tmp_path: Path) -> None:
    """Steps begin at 0 again and detectors begin anew; the dead incarnation does not hold the new one up."""
    for incarnation in range(2):
        for rank in range(2):
            pid = 4_000_000 + 10 * incarnation + rank
            spool = writer(tmp_path, rank, 2, incarnation=incarnation, pid=pid)
            for step in range(4):
                spool.step(step, 1000.0 + 100 * incarnation + step, {"loss": 20.0 if incarnation else 1.0})
            spool.close()
    engine = play(list(merged(streams(tmp_path))), (HighLoss,))

    assert [crew.hello.incarnation for crew in engine.crews] == [0, 1]
    assert {(n.crew.hello.incarnation, n.finding.first_step) for n in engine.noted} == {(1, 0)}


def test_two_trainings_in_one_command_are_two_crews(tmp_path: Path) -> None:
    train(writer(tmp_path, pid=4_000_001), [1.0] * 3)
    train(writer(tmp_path, pid=4_000_002), [1.0] * 5, start=2000.0)
    engine = play(list(merged(streams(tmp_path))))

    assert [crew.history.last_step for crew in engine.crews] == [{0: 2}, {0: 4}]


def test_a_detector_that_raises_is_retired_with_a_reason(tmp_path: Path) -> None:
    train(writer(tmp_path), [1.0] * 5 + [99.0])
    engine = play(streams(tmp_path)[0], (Broken, HighLoss))

    assert [noted.finding.kind for noted in engine.noted] == ["explosion"]
    assert engine.statuses()["plateau"].state == "not_checked"
    assert "ZeroDivisionError: on purpose" in engine.statuses()["plateau"].reason


def test_what_no_signal_was_sent_for_is_not_checked(tmp_path: Path) -> None:
    train(writer(tmp_path), [1.0] * 5)
    statuses = play(streams(tmp_path)[0]).statuses()

    assert statuses["explosion"].state == "ok"
    assert statuses["vanishing"].state == "not_checked"
    assert "parameter_gradient_norm" in statuses["vanishing"].reason


@pytest.mark.parametrize(("norm", "fires"), [(ABSENT, False), (0.0, True), (float("nan"), False)])
def test_absent_profile_entries_are_masked(tmp_path: Path, norm: float, fires: bool) -> None:
    spool = writer(tmp_path)
    spool.write(Axis("parameter:0", "parameter", ["weight"]))
    values = {"parameter_gradient_norm": pack_floats(np.array([norm]))}
    spool.write(Profile(0, 1000.0, "parameter:0", values))
    train(spool, [1.0, 1.0])

    assert bool(play(streams(tmp_path)[0], (ZeroNorm,)).noted) is fires


def test_each_optimizer_has_its_own_steps(tmp_path: Path) -> None:
    """A critic that steps five times as often does not shift the generator's steps."""
    spool = writer(tmp_path)
    for step in range(10):
        spool.write(Step(step, 1000.0 + step, {"loss": 1.0 if step < 8 else 99.0}, optimizer=1))
        if step % 5 == 4:
            spool.write(Step(step // 5, 1000.0 + step, {"loss": 1.0}, optimizer=0))
    goodbye(spool, 10)
    found = [noted.finding for noted in play(streams(tmp_path)[0], (HighLoss,)).noted]

    assert [(f.optimizer, f.first_step) for f in found] == [(1, 8)]


def test_processes_that_vanish_are_findings(tmp_path: Path) -> None:
    spool = writer(tmp_path)
    spool.step(0, 1000.0, {"loss": 1.0})
    spool.close()
    entries = streams(tmp_path)[0]
    engine = play(entries, gone=[entries[0].hello])

    assert [noted.finding.kind for noted in engine.noted] == ["crash"]
    assert engine.processes[0, 4_000_000, "elsewhere"].gone
