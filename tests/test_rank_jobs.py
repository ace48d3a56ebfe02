"""Real ranks over gloo: what the monitor must not do, whom it compares, and jobs that start again."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from torchvitals.agent.commands_demo import known_jobs
from torchvitals.agent.demo_judgement import misjudged, told
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.agent.report import incident_object
from torchvitals.signals.reader import Entry, RunReader
from torchvitals.signals.records import Digest, Step

PREAMBLE = """
    import json, os, sys, torch, torch.distributed as dist
    from torch import nn
    torch.set_num_threads(1)
    # A file of its own for each incarnation: in the store of a bare one the second may meet addresses of the first.
    meeting = "-".join([__file__, os.environ["TORCHELASTIC_RUN_ID"], os.environ["TORCHELASTIC_RESTART_COUNT"]])
    place = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])}
    dist.init_process_group("gloo", init_method=f"file://{meeting}", **place)
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
"""
SECONDS = 280
"""A machine without a free core takes a minute to start four ranks."""
DIES_AT_EXIT = "terminate called without an active exception"
"""Said by torch 2.13, watched or not, when a thread of gloo drops the context of the last backward (a Python object
that every collective of a backward holds) while the interpreter ends: pytorch/pytorch#190489. Seen once in some
thousand jobs, where the thread got no core for that long."""


def run(directory: Path, script: str, ranks: int, *, watched: bool = True, options: tuple[str, ...] = ()) -> str:
    """Run ``script`` under torchrun and, if ``watched``, under ``torchvitals run``; return what it printed."""
    path = directory / "train.py"
    path.write_text(textwrap.dedent(PREAMBLE) + textwrap.dedent(script))
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options, str(path)]
    ours = ["-m", "torchvitals.agent.cli", "run", "--dir", str(directory / "runs"), sys.executable] if watched else []
    for _ in range(2):
        ran = subprocess.run(
            [sys.executable, *ours, *torchrun],
            capture_output=True, text=True, timeout=SECONDS, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        if DIES_AT_EXIT not in ran.stderr:
            break
        shutil.rmtree(directory / "runs", ignore_errors=True)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout


def report(directory: Path) -> Report:
    """The diagnosis of the one run there is."""
    (path,) = (directory / "runs").iterdir()
    return diagnose_directory(path)


@pytest.mark.parametrize("name", ["unsynced_forward", "bit_flip_of_two"])
def test_rank_jobs_of_the_demo_are_judged_right(tmp_path: Path, name: str) -> None:
    """Two of the jobs that ``torchvitals demo --more`` plays; the others take minutes."""
    (job,) = (job for job in known_jobs() if job.name == name)
    ours = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--dir", str(tmp_path / "runs")]
    subprocess.run(
        [*ours, *job.command],
        check=True,
        capture_output=True,
        timeout=SECONDS,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    found = report(tmp_path)

    assert misjudged(job, [told(incident_object(incident)) for incident in found.incidents]) == ""


JOINED = """
    from torch.distributed.algorithms.join import Join
    ddp = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.02)
    torch.manual_seed(rank)
    for epoch in range(3):
        with Join([ddp]):
            for _ in range(20 + 3 * rank):
                optimizer.zero_grad()
                for part in range(2):  # two forwards to one step, both told to the others
                    rows = torch.randn(8, 8)
                    (ddp(rows) - rows[:, :1].abs()).square().mean().backward()
                optimizer.step()
    dist.destroy_process_group()
"""


def test_ranks_that_join_with_uneven_inputs_are_compared_at_the_same_steps(tmp_path: Path) -> None:
    run(tmp_path, JOINED, 2)
    found = report(tmp_path)

    assert found.incidents == []
    assert "desync" in found.checked
    (path,) = (tmp_path / "runs").iterdir()
    told = {(e.hello.rank, e.record.step) for e in RunReader(path).read() if isinstance(e.record, Step)}
    assert {step for rank, step in told if rank == 1} == set(range(69))
    assert {step for rank, step in told if rank == 0} == {step for step in range(69) if step % 23 < 20}


COLLECTIVES = """
    model = nn.Sequential(nn.Linear(16, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
    ddp = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(rank)
    for step in range(90):
        optimizer.zero_grad()
        with ddp.no_sync():
            ddp(torch.randn(8, 16, generator=generator)).square().mean().backward()
        ddp(torch.randn(8, 16, generator=generator)).square().mean().backward()
        nn.utils.clip_grad_norm_(ddp.parameters(), 1.0)
        optimizer.step()
        if step % 10 == 0:
            dist.all_reduce(torch.ones(3))
            if rank == 0:
                ddp.eval()
                with torch.no_grad():
                    model(torch.randn(8, 16))
                ddp.train()
    from torch._C._distributed_c10d import _dump_fr_trace_json
    number = dist.distributed_c10d._get_default_group()._get_sequence_number_for_group()
    entries = json.loads(_dump_fr_trace_json(includeCollectives=True))["entries"]
    told = [[e["collective_seq_id"], e["profiling_name"], e["input_sizes"], e["input_dtypes"]] for e in entries]
    if rank == 0:
        print("COLLECTIVES", json.dumps([number, told]))
    dist.barrier()
    dist.destroy_process_group()
"""


def test_a_monitored_job_issues_exactly_the_collectives_of_a_bare_one(tmp_path: Path) -> None:
    """By the flight recorder: number, operation, sizes and types of each, over every probe that ranks have.

    Ninety steps: digests, sums, running statistics and arrivals have all been looked at by then.
    """
    issued = {}
    for watched in (False, True):
        (line,) = (
            line for line in run(tmp_path, COLLECTIVES, 2, watched=watched).splitlines() if line.startswith("COLL")
        )
        issued[watched] = json.loads(line.removeprefix("COLLECTIVES "))
    number, entries = issued[False]

    assert issued[True] == issued[False]
    assert number >= len(entries) > 99
    names = {entry.record.__class__.__name__ for entry in _entries(tmp_path)}
    assert {"Digest", "Arrivals", "Profile"} <= names


def _entries(directory: Path) -> list[Entry]:
    (path,) = (directory / "runs").iterdir()
    return list(RunReader(path).read())


ELASTIC = """
    again = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    model = nn.parallel.DistributedDataParallel(nn.Linear(16, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    for step in range(40):
        if rank == 1 and step == 25 and not again:
            raise RuntimeError("a fault of the first time only")
        optimizer.zero_grad()
        model(torch.randn(8, 16, generator=generator)).square().mean().backward()
        optimizer.step()
    dist.barrier()
    dist.destroy_process_group()
"""


def test_an_elastic_restart_is_one_run_with_two_incarnations(tmp_path: Path) -> None:
    run(tmp_path, ELASTIC, 2, options=("--max-restarts", "1"))
    found = report(tmp_path)

    assert [crew.hello.incarnation for crew in found.engine.crews] == [0, 1]
    assert found.ranks == 2
    assert found.engine.newest.history.last_step == {0: 39, 1: 39}
    assert found.engine.crews[0].history.last_step == {0: 24, 1: 24}
    assert [(incident.kind, incident.rank) for incident in found.incidents] == [("crash", 1)]
    assert "a fault of the first time only" in found.incidents[0].explanation


SHARDED = """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    for step in range(45):
        optimizer.zero_grad()
        model(torch.randn(8, 16, generator=generator)).square().mean().backward()
        optimizer.step()
        if step == 21 and rank == 3:
            with torch.no_grad():
                model[2].weight.to_local().view(torch.int32)[0, 0] ^= 1
    dist.barrier()
    dist.destroy_process_group()
"""


def test_shards_are_compared_with_their_replicas(tmp_path: Path) -> None:
    """Hybrid sharding, two by two: ranks 1 and 3 hold the same half of each tensor, 0 and 2 the other."""
    run(tmp_path, SHARDED, 4)
    found = report(tmp_path)
    held = {
        tuple(entry.axis.details["replicas"])
        for entry in _entries(tmp_path)
        if isinstance(entry.record, Digest) and entry.record.kind == "parameter" and entry.axis
    }

    assert held == {("shard 0 of 2",) * 4, ("shard 1 of 2",) * 4}
    (incident,) = found.incidents
    assert (incident.kind, incident.first_step, incident.rank) == ("desync", 22, None)
    assert incident.where == "2.weight (shard 1 of 2)"
    assert incident.findings[0].evidence["ranks_compared"] == 2
    assert incident.findings[0].evidence["agreed_at"] == 21


FAILING_PROCESSOR = """
    from torch.distributed.fsdp import fully_shard
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.fails = nn.Linear(16, 32), nn.Linear(32, 4), False

        def forward(self, batch):
            hidden = self.first(batch).relu()
            if self.fails:
                self.fails = False  # it does not come again
                hidden = Fails.apply(hidden)
            return self.second(hidden)

    net = Net()
    model = WRAPPED
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    for step in range(30):
        net.fails = rank == 1 and step == 20
        optimizer.zero_grad()
        model(torch.randn(8, 16, generator=generator)).square().mean().backward()
        optimizer.step()
    dist.destroy_process_group()
"""


@pytest.mark.parametrize(
    ("wrapped", "known"), [("nn.parallel.DistributedDataParallel(net)", True), ("fully_shard(net)", False)]
)
def test_the_rank_that_made_a_gradient_bad_is_named_though_all_ranks_get_it(
    tmp_path: Path, wrapped: str, *, known: bool
) -> None:
    """Every loss is finite, every rank's shared gradients are not, and run again the step is well.

    A step under FSDP2 cannot be run again by one rank alone, so there the cause stays open.
    """
    run(tmp_path, FAILING_PROCESSOR.replace("WRAPPED", wrapped), 2)
    (incident,) = report(tmp_path).incidents

    assert (incident.kind, incident.rank, incident.first_step) == ("nonfinite", 1, 20)
    assert incident.cause == "corrupted_gradient" or not known


AVERAGING = """
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(rank)
    for step in range(60):
        optimizer.zero_grad()
        batch = torch.randn(8, 16, generator=generator)
        (model(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
        if step % 7 == 6:
            for parameter in model.parameters():
                dist.all_reduce(parameter.data)
                parameter.data /= world
    dist.barrier()
    dist.destroy_process_group()
"""


def test_ranks_that_average_their_weights_every_few_steps_are_well(tmp_path: Path) -> None:
    run(tmp_path, AVERAGING, 2)
    met: dict[int, dict[int, float]] = {0: {}, 1: {}}
    for entry in _entries(tmp_path):
        if isinstance(entry.record, Step) and "parameter_sum_found" in entry.record.values:
            met[entry.hello.rank][entry.record.step] = entry.record.values["parameter_sum_found"]

    assert met[0] == met[1]
    assert sorted(met[0]) == list(range(7, 60, 7))
    assert [incident.kind for incident in report(tmp_path).incidents] == []


POST_LOCAL = """
    from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
    from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
    from torch.distributed.optim import PostLocalSGDOptimizer
    alone, _ = dist.new_subgroups_by_enumeration([[each] for each in range(world)])
    ddp = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)))
    state = PostLocalSGDState(process_group=None, subgroup=alone, start_localSGD_iter=20)
    ddp.register_comm_hook(state, post_localSGD_hook)
    averager = PeriodicModelAverager(period=4, warmup_steps=20)
    optimizer = PostLocalSGDOptimizer(torch.optim.SGD(ddp.parameters(), lr=0.01), averager)
    generator = torch.Generator().manual_seed(rank)
    for step in range(60):
        optimizer.zero_grad()
        batch = torch.randn(8, 16, generator=generator)
        (ddp(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    dist.barrier()
    dist.destroy_process_group()
"""
"""Shared with all ranks for 20 steps, then with a part of them, and weights averaged every fourth step."""


def test_post_local_averaging_is_well(tmp_path: Path) -> None:
    run(tmp_path, POST_LOCAL, 2)
    apart = {
        e.record.step for e in _entries(tmp_path) if isinstance(e.record, Step) and "trains_apart" in e.record.values
    }

    assert [incident.kind for incident in report(tmp_path).incidents] == []
    assert apart >= set(range(30, 60))
    assert min(apart) == 20


BYPASSED = """
    ddp = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1)))
    optimizer = torch.optim.SGD(ddp.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(rank)
    for step in range(110):
        optimizer.zero_grad()
        batch = torch.randn(8, 16, generator=generator)
        (ddp.module(batch) - batch.sum(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    dist.barrier()
    dist.destroy_process_group()
"""


def test_a_wrapper_that_never_shared_is_told_from_the_first_step(tmp_path: Path) -> None:
    run(tmp_path, BYPASSED, 2)
    (incident,) = report(tmp_path).incidents

    assert (incident.kind, incident.cause, incident.first_step) == ("unsynced_backward", "unsynced_forward", 0)
    assert incident.findings[0].step == 2
