"""Whatever is spooled is stored once, whenever the agent looks and however often it is restarted."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
from sick_spool import Job, sick_run, well_run
from torchvitals.agent import lifecycle, series
from torchvitals.agent.intake import Intake
from torchvitals.agent.live_run import READ_AT_ONCE
from torchvitals.agent.offline import diagnose_directory
from torchvitals.agent.run_state import RunState
from torchvitals.agent.store import Store
from torchvitals.signals.records import LAUNCHER_RANK, Axis, Event, Stacks


class Clock:
    """Time that passes only when it is told to; each look at an intake is a second."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path):
    with Store(tmp_path / "agent.duckdb") as opened:
        yield opened


def make_intake(directory: Path, store: Store, *also: Path, **settings) -> tuple[Intake, Clock]:
    clock = Clock()
    return Intake([directory, *also], store, RunState, monotonic=clock, **settings), clock


def look(intake: Intake, clock: Clock, times: int = 8) -> None:
    """Enough looks to read what is there, notice an end and commit."""
    for _ in range(times):
        intake.tick()
        clock.now += 2.0


def scalars(store: Store) -> int:
    return store.query("SELECT count(*) AS n FROM scalars")[0]["n"]


def twice(store: Store) -> list[dict]:
    """Rows that are there more than once."""
    return store.query(
        "SELECT run, rank, optimizer, signal, step FROM scalars GROUP BY ALL HAVING count(*) > 1"
    ) + store.query("SELECT run, rank, signal, step, entry FROM parameter_values GROUP BY ALL HAVING count(*) > 1")


def told(store: Store) -> list[tuple]:
    return sorted((i["id"], i["kind"], i["first_step"], i["where"], i["cause"]) for i in lifecycle.incidents(store))


def test_before_during_and_after_the_job_the_agent_says_what_diagnose_says(tmp_path: Path) -> None:
    found = []
    for number, moment in enumerate(("before", "during", "after")):
        directory = tmp_path / moment
        store = Store(":memory:")
        intake, clock = make_intake(directory, store)
        job = None
        if moment == "before":
            look(intake, clock)
        for part in range(3):
            job = job or Job(directory, "sick-1")
            job.train(34, norms=[1e-12, 1e-9, 1e-5, 1e-3, 1.0])
            if moment == "before" or (moment == "during" and part > 0):
                look(intake, clock, 2)
        job.exit()
        look(intake, clock)
        offline = diagnose_directory(directory / "sick-1")
        found.append([(kind, step, where, cause) for _, kind, step, where, cause in told(store)])

        expected = [(i.kind, i.first_step, i.where, i.cause) for i in offline.incidents]
        assert sorted(expected) == found[number]
        assert len(expected) == 1
        assert scalars(store) == 102 * 5
        store.close()

    assert found[0] == found[1] == found[2]


def test_a_healthy_run_leaves_rows_and_no_incident(tmp_path: Path, store: Store) -> None:
    well_run(tmp_path)
    look(*make_intake(tmp_path, store))

    assert lifecycle.incidents(store) == []
    assert store.query("SELECT state, steps FROM runs") == [{"state": "finished", "steps": 100}]
    assert scalars(store) == 500


def test_a_restart_in_the_middle_stores_each_row_and_incident_once(tmp_path: Path) -> None:
    file = tmp_path / "agent.duckdb"
    job = Job(tmp_path, "sick-1")
    for _ in range(5):
        job.train(20, norms=[1e-12, 1e-9, 1e-5, 1e-3, 1.0])
        with Store(file) as store:  # a new agent each time, which knows nothing but what was committed
            look(*make_intake(tmp_path, store), times=3)
    job.exit()
    with Store(file) as store:
        look(*make_intake(tmp_path, store))

        assert scalars(store) == 500
        assert twice(store) == []
        assert len(told(store)) == 1


def test_the_life_cycle_survives_a_restart_that_finds_the_incident_again(tmp_path: Path) -> None:
    file = tmp_path / "agent.duckdb"
    job = Job(tmp_path, "sick-1")
    job.sicken()
    with Store(file) as store:
        look(*make_intake(tmp_path, store))
        identity = lifecycle.incidents(store)[0]["id"]
        before = lifecycle.acknowledge(store, identity, "ada")
        lifecycle.silence(store, identity, 5e9)
    job.exit()
    with Store(file) as store:
        look(*make_intake(tmp_path, store))
        after = lifecycle.incident(store, identity)

    assert (after["status"], after["acknowledged_by"], after["silenced_until"]) == ("acknowledged", "ada", 5e9)
    assert after["opened_at"] == before["opened_at"]


def test_a_commit_that_fails_loses_and_doubles_nothing(tmp_path: Path, store: Store, monkeypatch) -> None:
    sick_run(tmp_path)
    intake, clock = make_intake(tmp_path, store)
    with store.transaction() as cursor:
        cursor.execute("ALTER TABLE incidents RENAME TO hidden")  # rows and positions before it must go back too
    look(intake, clock, 3)

    assert intake.errors["store"] > 0
    assert scalars(store) == 0
    assert store.positions("sick-1") == {}
    with store.transaction() as cursor:
        cursor.execute("ALTER TABLE hidden RENAME TO incidents")
    look(intake, clock)
    assert scalars(store) == 500
    assert twice(store) == []
    assert len(told(store)) == 1


def test_a_torn_tail_is_waited_for(tmp_path: Path, store: Store) -> None:
    job = Job(tmp_path, "torn-1")
    job.train(10)
    file = next(tmp_path.glob("torn-1/*/0.spool"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    intake, clock = make_intake(tmp_path, store)
    look(intake, clock)
    assert scalars(store) == 9 * 5

    file.write_bytes(whole)
    look(intake, clock)
    assert scalars(store) == 10 * 5
    assert intake.dropped()["corrupt"] == 0


def test_a_backlog_is_fed_in_order_of_time_whoever_is_read_first(tmp_path: Path, store: Store) -> None:
    """Two ranks with several rounds of records each, and a launcher whose last word comes after all of them."""
    launcher = Job(tmp_path, "long-1", rank=LAUNCHER_RANK, pid=1 << 22)
    jobs = [Job(tmp_path, "long-1", rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(5):
        for job in jobs:
            job.train(READ_AT_ONCE // 2)
    for job in jobs:
        job.exit()
    launcher.spool.write(Event(9e9, -1, "command_exit", {"code": 0}))
    order: list[tuple[float, str]] = []

    class Witness(RunState):
        def feed(self, entries):
            order.extend((getattr(entry.record, "time", 0.0), type(entry.record).__name__) for entry in entries)
            return []

    clock = Clock()
    intake = Intake([tmp_path], store, Witness, monotonic=clock)
    look(intake, clock, 20)

    times = [time for time, kind in order if kind in ("Step", "Event")]
    assert times == sorted(times)
    assert times[-1] == 9e9
    assert len([1 for _, kind in order if kind == "Step"]) == READ_AT_ONCE * 5
    assert store.query("SELECT state FROM runs") == [{"state": "finished"}]


def test_processes_that_appear_later_and_axes_that_grow_are_followed(tmp_path: Path, store: Store) -> None:
    first = Job(tmp_path, "two-1", rank=0, world_size=2)
    first.train(3, norms=[1.0, 2.0])
    intake, clock = make_intake(tmp_path, store)
    look(intake, clock, 3)
    second = Job(tmp_path, "two-1", rank=1, world_size=2)
    second.train(3)
    first.spool.write(Axis("parameter:0", "parameter", ["a", "b", "c"]))
    first.train(10, norms=None)
    look(intake, clock, 3)

    assert store.query("SELECT ranks FROM runs") == [{"ranks": 2}]
    names = store.query("SELECT entry, name FROM axis_entries ORDER BY entry")
    assert [row["name"] for row in names] == ["a", "b", "c"]


def test_a_process_that_dies_without_a_word_is_lost_and_a_failing_command_failed(tmp_path: Path, store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    Job(tmp_path, "lost-1", pid=child.pid).train(5)
    launcher = Job(tmp_path, "failed-1", rank=LAUNCHER_RANK)
    Job(tmp_path, "failed-1").train(5)
    launcher.spool.write(Event(2.0, -1, "command_exit", {"code": 3}))
    intake, clock = make_intake(tmp_path, store)
    look(intake, clock)
    states = {row["run"]: row["state"] for row in store.query("SELECT run, state FROM runs")}
    assert states == {"lost-1": "running", "failed-1": "failed"}

    child.kill()
    child.wait()
    child.stdin.close()
    look(intake, clock)
    assert store.query("SELECT state FROM runs WHERE run = 'lost-1'") == [{"state": "lost"}]


def test_a_run_that_goes_on_after_its_end_is_read_anew(tmp_path: Path, store: Store) -> None:
    job = Job(tmp_path, "again-1")
    job.train(10)
    job.exit()
    intake, clock = make_intake(tmp_path, store)
    look(intake, clock)
    again = Job(tmp_path, "again-1", pid=1 << 22)
    again.sicken()
    again.exit()
    look(intake, clock, 40)

    assert len(told(store)) == 1
    assert scalars(store) == (10 + 100) * 5


def test_what_is_settled_or_too_old_is_not_read_again(tmp_path: Path, store: Store) -> None:
    sick_run(tmp_path)
    look(*make_intake(tmp_path, store))
    again, clock = make_intake(tmp_path, store)
    look(again, clock)
    assert again.records == 0

    with Store(":memory:") as empty:
        late, clock = make_intake(tmp_path, empty, since=-60.0)
        look(late, clock)
        assert late.records == 0


def test_foreign_folders_and_a_missing_directory_are_passed_over(tmp_path: Path, store: Store) -> None:
    intake, clock = make_intake(tmp_path / "not" / "there", store)
    look(intake, clock)
    (tmp_path / "photos" / "0.1").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x")
    look(*make_intake(tmp_path, store))

    assert store.query("SELECT * FROM runs") == []
    assert intake.errors == {"intake": 0, "store": 0}


def test_an_engine_that_fails_costs_the_diagnosis_not_the_rows(tmp_path: Path, store: Store) -> None:
    class Broken(RunState):
        def feed(self, entries):
            raise RuntimeError("a cause divided by zero")

    sick_run(tmp_path)
    clock = Clock()
    look(Intake([tmp_path], store, Broken, monotonic=clock), clock)

    assert scalars(store) == 500
    row = store.query("SELECT not_checked, state FROM runs")[0]
    assert "divided by zero" in row["not_checked"]
    assert row["state"] == "finished"


def test_non_finite_values_stacks_and_events_arrive_as_they_were(tmp_path: Path, store: Store) -> None:
    job = Job(tmp_path, "odd-1")
    for loss in (math.nan, math.inf, -math.inf, 0.5):
        job.train(1, loss=loss, norms=[math.nan, math.inf])
    job.spool.write(Stacks(3.0, 3, "standstill", {"MainThread": ["train.py:3 main"]}))
    look(*make_intake(tmp_path, store))

    losses = [row["value"] for row in store.query("SELECT value FROM scalars WHERE signal = 'loss' ORDER BY step")]
    assert math.isnan(losses[0])
    assert losses[1:] == [math.inf, -math.inf, 0.5]
    profile = series.profiles(store, "odd-1", "parameter_gradient_norm")
    assert math.isnan(profile["values"][0][0])
    assert profile["values"][0][1] == math.inf
    assert "standstill" in store.query("SELECT details FROM events WHERE kind = 'stacks'")[0]["details"]
