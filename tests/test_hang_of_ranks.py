"""A real job of two ranks that stands still, and one whose rank is killed: told by rank, line and peers."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from torchvitals.agent.offline import diagnose_directory
from torchvitals.signals.reader import SpoolError, list_runs
from torchvitals.signals.records import LAUNCHER_RANK

from tests.waiting import eventually

PATIENCE = 400.0
"""Seconds; the job needs ten on a free machine."""
SCRIPT = """
import os, signal, sys, threading
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
torch.set_num_threads(1)
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(rank)
if sys.argv[1] == "shards":
    from torch.distributed.fsdp import fully_shard
    torch.manual_seed(0)
    model = fully_shard(torch.nn.Linear(8, 2))
else:
    model = DistributedDataParallel(torch.nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
lock = threading.Lock()
lock.acquire()

def end(step):
    if step == 40 and rank == 1 and sys.argv[1] == "shards":
        dist.all_reduce(torch.ones(1))  # ALONE
    elif step == 40 and rank == 1:
        if sys.argv[1] == "lock":
            lock.acquire()  # FAULT
        os.kill(os.getpid(), signal.SIGKILL)

for step in range(100000):
    loss = model(torch.randn(8, 8)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    end(step)
    optimizer.step()
"""


@pytest.fixture
def job(tmp_path):
    """Starts the script with a word under ``torchvitals run``; ends all of it afterwards, by its process numbers."""
    started = []
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)

    def start(word):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        run = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--dir", str(tmp_path / "runs"), "--name", word]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("TORCHVITALS")}
        with (tmp_path / "output").open("wb") as output:
            process = subprocess.Popen(
                [*run, *torchrun, str(script), word],
                env={**environ, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def incidents(runs: Path):
    """What ``diagnose`` says of the one run so far."""
    try:
        (listing,) = list_runs(runs)
        return diagnose_directory(listing.path).incidents
    except (SpoolError, ValueError):
        return []


def test_a_rank_in_a_deadlock_is_told_while_its_peer_waits_for_it(job, tmp_path):
    process = job("lock")
    (incident,) = eventually(lambda: incidents(tmp_path / "runs"), PATIENCE, (tmp_path / "output").read_text())
    line = next(n for n, text in enumerate(SCRIPT.splitlines(), 1) if "# FAULT" in text)

    assert process.poll() is None, "it still stands"
    assert (incident.kind, incident.cause, incident.rank) == ("hang", "stuck_code", 1)
    assert (incident.where, incident.first_step) == (f"job.py:{line}", 40)
    waiting, guilty = sorted(incident.stacks, key=lambda group: not group["waits"])
    assert (waiting["ranks"], guilty["ranks"]) == ([0], [1])
    assert json.dumps(incident.stacks)


def test_a_collective_of_its_own_is_told_where_a_wrapper_shards(job, tmp_path):
    """FSDP2 leaves frames of a compiler on the stack, where nothing is compiled."""
    process = job("shards")
    (incident,) = eventually(lambda: incidents(tmp_path / "runs"), PATIENCE, (tmp_path / "output").read_text())
    line = next(n for n, text in enumerate(SCRIPT.splitlines(), 1) if "# ALONE" in text)

    assert process.poll() is None, "it still stands"
    assert (incident.kind, incident.cause) == ("hang", "collective_mismatch")
    assert (incident.where, incident.first_step) == (f"job.py:{line}", 40)


def test_a_killed_rank_is_the_one_crash_with_its_signal(job, tmp_path):
    process = job("kill")
    process.wait(PATIENCE)
    (incident,) = incidents(tmp_path / "runs")
    report = diagnose_directory(list_runs(tmp_path / "runs")[0].path)
    told = [e for e in report.engine.launcher_events if e.kind in ("process_gone", "children")]

    assert (incident.kind, incident.rank) == ("crash", 1)
    assert "SIGKILL" in incident.title
    assert {event.kind for event in told} >= {"children"}
    assert min(process.hello.rank for process in report.engine.processes.values()) == LAUNCHER_RANK
