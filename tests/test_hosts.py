"""A run that spans hosts: their clocks differ by seconds, ranks lie in two directories, or never speak."""

from pathlib import Path

import numpy as np
import pytest
from made_up import goodbye, writer
from torchvitals.agent.cli import main
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.hooks import identity
from torchvitals.signals.records import Arrivals, Axis, Digest, pack_integers

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
