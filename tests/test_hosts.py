"""A run that spans hosts: their clocks differ by seconds, ranks lie in two directories, or never speak."""

from pathlib import Path

import numpy as np
import pytest
from made_up import goodbye, writer
from torchvitals.agent import lifecycle
from torchvitals.agent.cli import main
from torchvitals.agent.intake import Intake
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.agent.run_state import RunState
from torchvitals.agent.store import Store
from torchvitals.hooks import identity
from torchvitals.signals.records import LAUNCHER_RANK, Arrivals, Axis, Digest, Event, pack_integers

STEPS, STEP_SECONDS, BEGAN = 160, 0.1, 1000.0
PARTED, LATE_RANK, ODD_RANK = 57, 2, 3


def record(directory: Path, rank: int, host: str, *, ahead: float, steps: int = STEPS, world: int = 4) -> None:
    """One rank: digests every tenth step, sums at each, arrivals every 64; ranks 2 and 3 each have a fault."""
    spool = writer(directory, rank, world, host=host)
    spool.write(Axis("parameter:0", "parameter", ["body", "head"], {"replicas": ["", ""]}))
    late = 0.04 if rank == LATE_RANK else 0.001 * rank
    created: list[int] = []
    for step in range(steps):
        odd = rank == ODD_RANK and step >= PARTED
        now = BEGAN + ahead + (step + 1) * STEP_SECONDS
        created.append(int(1e9 * (now - STEP_SECONDS + 0.03 + late)))
        if step % 10 == 0:
            spool.write(Digest(step, now, "parameter:0", "parameter", pack_integers(np.array([step, step + odd]))))
        spool.step(
            step,
            now,
            {
                "step_seconds": STEP_SECONDS,
                "data_seconds": late,
                "parameter_sum": float(step + odd),
                "collectives": 2.0,
            },
        )
        if len(created) == 64:
            spool.write(Arrivals(now, "0", step - 63, pack_integers(np.array(created))))
            created.clear()
    goodbye(spool, steps, BEGAN + ahead)


def told(report: Report) -> list[tuple[object, ...]]:
    found = ((i.kind, i.cause, i.rank, i.where, i.first_step, i.detected_step) for i in report.incidents)
    return sorted(found, key=str)


EXPECTED = [
    ("desync", "corrupted_gradient", ODD_RANK, "head", PARTED, 60),
    ("straggler", "slow_input_rank", LATE_RANK, "", 0, 103),
]


@pytest.mark.parametrize("ahead", [0.0, 7.3, -4.1, 3600.0])
def test_two_directories_of_two_hosts_are_one_run_whatever_their_clocks_say(tmp_path: Path, ahead: float) -> None:
    for rank in range(4):
        host = "a" if rank < 2 else "b"
        record(tmp_path / host, rank, host, ahead=ahead if host == "b" else 0.0)
    report = diagnose_directory(tmp_path / "a" / "made-up", also=[tmp_path / "b" / "made-up"])

    assert told(report) == EXPECTED
    assert report.ranks == 4


def test_clocks_that_differ_say_nothing_of_who_is_late(tmp_path: Path) -> None:
    """The only fault is that of a rank of the host whose clock is behind: it seems to come first to everything."""
    for rank in range(3):
        record(tmp_path, rank, f"host {rank}", ahead=-2.0 * rank, world=3)

    assert told(diagnose_directory(tmp_path / "made-up")) == EXPECTED[1:]


def test_the_command_line_takes_both_directories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in range(4):
        record(tmp_path / str(rank % 2), rank, f"host {rank % 2}", ahead=5.0 * (rank % 2))
    assert main(["diagnose", str(tmp_path / "0" / "made-up"), "--also", str(tmp_path / "1" / "made-up"), "--json"]) == 0

    out = capsys.readouterr().out
    assert '"desync"' in out
    assert '"straggler"' in out


def test_a_rank_that_never_speaks_hides_nothing_of_the_others(tmp_path: Path) -> None:
    """Rank 0 was not watched; the other three are still compared, and a majority is left."""
    for rank in (1, 2, 3):
        record(tmp_path, rank, "a", ahead=0.0)

    assert told(diagnose_directory(tmp_path / "made-up")) == EXPECTED


def test_a_rank_that_stops_early_ends_no_comparison(tmp_path: Path) -> None:
    for rank in range(4):
        record(tmp_path, rank, "a", ahead=0.0, steps=40 if rank == 1 else STEPS)

    assert ("desync", "corrupted_gradient", ODD_RANK, "head", PARTED, 60) in told(
        diagnose_directory(tmp_path / "made-up")
    )


class Agent:
    """An agent that reads several directories; each look is two seconds."""

    def __init__(self, store: Store, *directories: Path) -> None:
        self.now = 0.0
        self.store = store
        liveness = Liveness(clock=lambda: BEGAN)  # nobody of another host is silent for long
        self.intake = Intake(directories, store, RunState, liveness=liveness, monotonic=lambda: self.now)

    def look(self, times: int = 8) -> None:
        for _ in range(times):
            self.intake.tick()
            self.now += 2.0

    def told(self) -> list[tuple[object, ...]]:
        self.look()
        keys = ("kind", "cause", "rank", "where", "first_step", "detected_step")
        return sorted((tuple(each[key] for key in keys) for each in lifecycle.incidents(self.store)), key=str)


@pytest.mark.parametrize("ahead", [0.0, 7.3, -4.1])
def test_an_agent_that_reads_both_directories_compares_ranks_as_diagnose_does(tmp_path: Path, ahead: float) -> None:
    """The directory of the second host is found later, as on a file system that is mounted late."""
    with Store(":memory:") as store:
        agent = Agent(store, tmp_path / "a", tmp_path / "b")
        for rank in range(4):
            agent.look(2)
            host = "a" if rank < 2 else "b"
            record(tmp_path / host, rank, host, ahead=ahead if host == "b" else 0.0)

        assert agent.told() == EXPECTED
        assert store.query("SELECT state, ranks FROM runs") == [{"state": "finished", "ranks": 4}]


def test_an_agent_that_starts_again_stores_no_row_of_any_host_twice(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:  # containers that begin to number at the same number: same names, other processes
        launcher(place)
    for rank in range(4):
        record(places[rank % 2], rank, f"host {rank % 2}", ahead=0.0)
    with Store(":memory:") as store:
        for _ in range(2):
            assert Agent(store, *places).told() == EXPECTED
        rows = store.query("SELECT count(*) AS n FROM scalars WHERE signal = 'parameter_sum'")

        assert rows == [{"n": 4 * STEPS}]
        assert store.query("SELECT count(DISTINCT process) AS n FROM processes") == [{"n": 6}]


def launcher(directory: Path, code: int | None = 0) -> None:
    spool = writer(directory, LAUNCHER_RANK, 1, pid=7, host=directory.name)
    spool.write(Event(BEGAN, -1, "command", {}))
    if code is not None:
        spool.write(Event(BEGAN + 1, -1, "command_exit", {"code": code}))
    spool.close()


def test_a_run_is_over_when_the_launcher_of_every_host_is(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for place, code in zip(places, (0, None), strict=True):
        launcher(place, code)
        record(place, places.index(place), place.name, ahead=0.0, world=2, steps=3)
    with Store(":memory:") as store:
        Agent(store, *places).look()

        assert store.query("SELECT state FROM runs") == [{"state": "running"}]


def test_the_failure_of_one_host_is_that_of_the_run(tmp_path: Path) -> None:
    for name, code in (("a", 0), ("b", 3), ("c", 0)):
        launcher(tmp_path / name, code)
    runs = [tmp_path / name / "made-up" for name in "abc"]
    report = diagnose_directory(runs[0], also=runs[1:])

    assert (report.state, [i.kind for i in report.incidents]) == ("failed", ["crash"])


ELASTIC = {"TORCHELASTIC_RUN_ID": "5f1c", "MASTER_ADDR": "node0", "MASTER_PORT": "29400"}


def test_an_elastic_job_keeps_its_id_although_its_port_changes() -> None:
    again = {**ELASTIC, "MASTER_PORT": "41233", "TORCHELASTIC_RESTART_COUNT": "1"}

    assert identity.run_id(again) == identity.run_id(ELASTIC)
    assert identity.run_id({**ELASTIC, "TORCHELASTIC_RUN_ID": "other"}) != identity.run_id(ELASTIC)


def test_without_an_id_of_its_own_the_port_tells_jobs_apart() -> None:
    first, second = ({**ELASTIC, "TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": port} for port in ("29400", "29500"))

    assert identity.run_id(first) != identity.run_id(second)


def test_hosts_of_one_job_agree_on_its_id(monkeypatch: pytest.MonkeyPatch) -> None:
    several = {**ELASTIC, "GROUP_WORLD_SIZE": "2"}
    here = identity.run_id(several)
    alone = identity.run_id(ELASTIC)
    monkeypatch.setattr(identity.os, "getppid", lambda: 7)

    assert identity.run_id(several) == here
    assert identity.run_id(ELASTIC) != alone
