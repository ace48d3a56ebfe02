"""Collective counters are read without a trace, and every private name may be missing."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
import torch.distributed as dist
from torchvitals.hooks import collectives
from torchvitals.hooks.collectives import Collectives


class Group:
    def __init__(self, number):
        self.number = number

    def _get_sequence_number_for_group(self):
        if self.number is None:
            raise RuntimeError("not supported")
        return self.number


class World:
    def __init__(self, *numbers):
        groups = [Group(number) for number in numbers]
        self.pg_map = dict.fromkeys(groups, ("gloo", None))
        self.pg_names = {group: str(index) for index, group in enumerate(groups)}


@pytest.fixture
def world(monkeypatch):
    def plant(*numbers):
        monkeypatch.setattr(dist.distributed_c10d, "_world", World(*numbers))
        return Collectives()

    return plant


def test_without_process_groups_there_is_nothing_to_count():
    counters = Collectives()

    assert counters.total_or_none() is None
    assert counters.total() == 0
    assert counters.sequences() == {}
    assert counters.reason() == ""


def test_the_total_is_the_sum_over_groups(world):
    counters = world(3, 4)

    assert counters.sequences() == {"0": 3, "1": 4}
    assert counters.total() == 7


def test_a_group_that_does_not_count_is_left_out(world):
    counters = world(3, None)

    assert counters.sequences() == {"0": 3}
    assert counters.reason() == ""


def test_when_no_group_counts_the_reason_says_so(world):
    counters = world(None)

    assert counters.total_or_none() is None
    assert "does not number" in counters.reason()


def test_a_torch_that_does_not_list_its_groups_is_said(monkeypatch):
    monkeypatch.setattr(dist.distributed_c10d, "_world", object())

    assert "pg_map" in Collectives().reason()
    assert Collectives().total_or_none() is None


def test_a_torch_without_distributed_is_said(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)

    assert "without torch.distributed" in Collectives().reason()
    assert Collectives().sequences() == {}


@pytest.mark.parametrize("answer", [None, "raises", b"not json", b"[1]"])
def test_without_a_flight_recorder_its_answers_are_empty(monkeypatch, answer):
    def dump(*, includeCollectives):  # noqa: N803 (torch's name)
        if answer == "raises":
            raise RuntimeError("no process group")
        return answer

    monkeypatch.setattr(collectives, "_dump_function", lambda: None if answer is None else dump)

    assert Collectives().status() == {}
    assert Collectives().last() == []


def test_the_newest_collectives_of_each_group_are_reported(monkeypatch):
    entries = [
        {
            "process_group": [group, ""],
            "collective_seq_id": sequence,
            "profiling_name": "gloo:all_reduce",
            "input_sizes": [[3]],
            "input_dtypes": ["Float"],
            "retired": sequence < 5,
        }
        for sequence in range(6)
        for group in ("0", "1")
    ]
    record = {
        "entries": entries,
        "pg_status": {"0": {"last_enqueued_collective": "5", "last_started_collective": "-1"}},
    }
    monkeypatch.setattr(collectives, "_dump_function", lambda: lambda **_: json.dumps(record).encode())
    counters = Collectives()

    last = counters.last(2)

    assert [(entry["group"], entry["sequence"]) for entry in last] == [("0", 4), ("0", 5), ("1", 4), ("1", 5)]
    assert last[1]["operation"] == "gloo:all_reduce"
    assert last[1]["sizes"] == [[3]]
    assert counters.status() == {"0": {"enqueued": 5, "started": -1}}


RANK = """
    import json, sys, torch, torch.distributed as dist
    from torchvitals.hooks.collectives import Collectives
    dist.init_process_group("gloo")
    counters = Collectives()
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
    def backward(run):
        before = counters.total()
        run(torch.ones(2, 4)).sum().backward()
        return counters.total() - before
    told = {"synced": [backward(model) for _ in range(3)], "bypassed": backward(model.module)}
    with model.no_sync():
        told["no_sync"] = backward(model)
    before = counters.total()
    dist.all_reduce(torch.ones(1))
    told["all_reduce"] = counters.total() - before
    told["last"] = counters.last(1)
    told["status"] = counters.status()
    dist.barrier()
    if dist.get_rank() == 0:
        print(json.dumps(told))
    dist.destroy_process_group()
"""


def test_two_real_ranks_count_their_gradient_reductions(tmp_path):
    script = tmp_path / "rank.py"
    script.write_text(textwrap.dedent(RANK))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    told = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("{")))

    assert min(told["synced"]) >= 1
    assert (told["bypassed"], told["no_sync"], told["all_reduce"]) == (0, 0, 1)
    assert "all_reduce" in told["last"][0]["operation"]
    assert told["status"]["0"]["enqueued"] == told["last"][0]["sequence"]
