"""Dumps of torch's flight recorder: read without running them, and the first collective that differs is named.

The gloo dumps are made by torch here. The NCCL ones are made by hand from the layout that torch documents for its
analyser (pg_config with ranks as text, ``nccl:`` names, states, frames): no GPU was at hand to record one.
"""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from torchvitals.agent import collective_order, flight_records
from torchvitals.agent.dump_diagnosis import diagnose_dumps
from torchvitals.agent.flight_records import FlightRecordError
from torchvitals.agent.offline import diagnose_directory
from torchvitals.signals.reader import SpoolError
from torchvitals.signals.records import Beat, Event, Stacks

from tests.made_up import train, writer

GLOO = """
import json, os, sys, torch, torch.distributed as dist
from torch._C import _distributed_c10d as recorder
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
for _ in range(3):
    dist.all_reduce(torch.ones(3))
kind = sys.argv[3]
if kind == "operation":
    work = dist.broadcast(torch.ones(2), 0, async_op=True) if rank else dist.all_reduce(torch.ones(2), async_op=True)
elif kind == "missing" and rank == 0:
    work = dist.all_reduce(torch.ones(2), async_op=True)
store = torch.distributed.FileStore(f"{folder}/done", 2)
store.set(str(rank), "1")
store.wait([str(1 - rank)])
open(f"{folder}/trace_rank_{rank}", "wb").write(recorder._dump_fr_trace())
text = recorder._dump_fr_trace_json(includeCollectives=True)
open(f"{folder}/json_rank_{rank}", "wb").write(text if isinstance(text, bytes) else text.encode())
store.set(f"written {rank}", "1")
store.wait([f"written {1 - rank}"])
os._exit(0)
"""


def gloo_dumps(folder: Path, kind: str) -> Path:
    """The dumps of two gloo ranks, by torch itself: pickles named ``trace_rank_n``, JSON named ``json_rank_n``."""
    script = folder / "job.py"
    script.write_text(GLOO)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("TORCHVITALS", "RANK", "WORLD_SIZE"))}
    command = [sys.executable, str(script)]
    ranks = [
        subprocess.Popen([*command, str(r), str(folder), kind], env={**environ, "OMP_NUM_THREADS": "1"}) for r in (0, 1)
    ]
    try:
        assert [rank.wait(300) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return folder


def read(folder: Path, prefix: str):
    records, unread = flight_records.read_folder(folder.glob(f"{prefix}_rank_*"))
    assert unread == []
    return records


@pytest.fixture(scope="module")
def different(tmp_path_factory):
    return gloo_dumps(tmp_path_factory.mktemp("operation"), "operation")


class TestGloo:
    def test_pickle_and_json_of_one_ring_tell_the_same(self, different):
        pickled, text = read(different, "trace"), read(different, "json")

        for rank in (0, 1):
            plain = [
                [(c.sequence, c.operation, c.sizes, c.dtypes) for c in record[rank].groups["0"]]
                for record in (pickled, text)
            ]
            assert plain[0] == plain[1]
            assert [number for number, *_ in plain[0]] == [1, 2, 3, 4]

    def test_another_operation_is_named_with_its_number_and_line(self, different):
        mismatch = collective_order.first_mismatch(read(different, "trace"))

        assert (mismatch.verdict, mismatch.sequence, mismatch.ranks) == ("COLLECTIVE_TYPE_MISMATCH", 4, [])
        assert mismatch.operations == {0: "all_reduce of [[2]]", 1: "broadcast of [[2]]"}
        assert "all_reduce of [[2]] on rank 0 at job.py:10" in mismatch.sentence

    def test_a_rank_that_never_came_is_named(self, tmp_path):
        mismatch = collective_order.first_mismatch(read(gloo_dumps(tmp_path, "missing"), "trace"))

        assert (mismatch.verdict, mismatch.sequence, mismatch.ranks) == ("MISSING_RANKS", 4, [1])
        assert "the last of it is rank 1: all_reduce of [[3]] #3 at job.py:7" in mismatch.sentence

    def test_a_folder_of_dumps_is_diagnosed_without_a_run(self, different, tmp_path):
        for rank in (0, 1):
            (tmp_path / f"trace_rank_{rank}").write_bytes((different / f"trace_rank_{rank}").read_bytes())
        (tmp_path / "notes1.txt").write_text("not a dump")
        report = diagnose_dumps(tmp_path)
        (incident,) = report.incidents

        assert (incident.kind, incident.cause) == ("collective_mismatch", "collective_mismatch")
        assert incident.where == "job.py:10"
        assert [item.what for item in report.not_checked if "notes1" in item.what] == ["dump notes1.txt"]


def nccl_entry(
    number, operation="all_reduce", *, sizes=((4096,),), state="completed", line=40, dtype="Float", group="0"
):
    return {
        "frames": [
            {"name": operation, "filename": "/x/site-packages/torch/distributed/distributed_c10d.py", "line": 2806},
            {"name": "train", "filename": "/job/train.py", "line": line},
        ],
        "record_id": number,
        "pg_id": int(group),
        "process_group": (group, "default_pg" if group == "0" else "tensor_parallel"),
        "collective_seq_id": number,
        "p2p_seq_id": 0,
        "op_id": number,
        "profiling_name": f"nccl:{operation}",
        "time_created_ns": 1_700_000_000_000_000_000 + number,
        "input_sizes": sizes,
        "input_dtypes": [dtype],
        "output_sizes": sizes,
        "output_dtypes": [dtype],
        "state": state,
        "time_discovered_started_ns": None,
        "time_discovered_completed_ns": 1 if state == "completed" else None,
        "retired": state == "completed",
        "timeout_ms": 600000,
        "is_p2p": False,
    }


def nccl_dump(*entries, world=4, version="2.4"):
    config = {"0": {"name": "0", "desc": "default_pg", "ranks": json.dumps(list(range(world)))}}
    config["1"] = {"name": "1", "desc": "tensor_parallel", "ranks": "[0, 1]"}
    return {"version": version, "pg_config": config, "pg_status": {}, "entries": list(entries)}


def analysed(*dumps):
    records = {rank: flight_records.parse(dump, rank) for rank, dump in enumerate(dumps) if dump is not None}
    return collective_order.first_mismatch(records)


def alike(count=4, first=1, last=9):
    return [nccl_dump(*(nccl_entry(number) for number in range(first, last + 1))) for _ in range(count)]


def add(dump, *entries):
    changed = copy.deepcopy(dump)
    changed["entries"].extend(entries)
    return changed


class TestNccl:
    def test_ranks_that_did_the_same_are_well(self):
        assert analysed(*alike()) is None

    def test_the_rank_that_differs_from_three_is_named(self):
        ranks = [add(dump, nccl_entry(10, state="started")) for dump in alike()]
        ranks[2] = add(alike()[2], nccl_entry(10, "_all_gather_base", state="scheduled", line=71))
        mismatch = analysed(*ranks)

        assert (mismatch.verdict, mismatch.sequence, mismatch.ranks) == ("COLLECTIVE_TYPE_MISMATCH", 10, [2])
        assert "_all_gather_base of [[4096]] on rank 2 at train.py:71" in mismatch.sentence
        assert "on ranks 0, 1, 3 at train.py:40" in mismatch.sentence

    @pytest.mark.parametrize(
        ("changed", "verdict"),
        [({"sizes": ((4095,),)}, "SIZE_OR_SYNTAX_MISMATCH"), ({"dtype": "Half"}, "COLLECTIVE_DTYPE_MISMATCH")],
    )
    def test_other_sizes_and_dtypes(self, changed, verdict):
        ranks = [add(dump, nccl_entry(10, state="started")) for dump in alike()]
        ranks[3] = add(alike()[3], nccl_entry(10, state="started", **changed))
        mismatch = analysed(*ranks)

        assert (mismatch.verdict, mismatch.ranks) == (verdict, [3])

    @pytest.mark.parametrize("operation", sorted(collective_order.UNLIKE))
    def test_sizes_that_may_differ_are_no_mismatch(self, operation):
        assert analysed(*(nccl_dump(nccl_entry(1, operation, sizes=((rank,),))) for rank in range(4))) is None

    def test_a_rank_that_is_behind_is_missing_with_its_last_line(self):
        ranks = [add(dump, nccl_entry(10, state="started")) for dump in alike()]
        ranks[1] = alike()[1]
        mismatch = analysed(*ranks)

        assert (mismatch.verdict, mismatch.ranks, mismatch.sequence) == ("MISSING_RANKS", [1], 10)
        assert mismatch.title == "Rank 1 never issued collective #10"

    def test_all_wait_in_the_same_one(self):
        mismatch = analysed(*(add(dump, nccl_entry(10, state="started")) for dump in alike()))

        assert (mismatch.verdict, mismatch.ranks, mismatch.proves) == ("UNFINISHED", [], False)

    def test_one_did_not_finish(self):
        ranks = [
            add(d, nccl_entry(10, state="started" if rank == 3 else "completed")) for rank, d in enumerate(alike())
        ]

        assert (analysed(*ranks).verdict, analysed(*ranks).ranks) == ("COLLECTIVE_STATE_MISMATCH", [3])

    def test_rings_that_have_wrapped_are_compared_where_both_remember(self):
        ranks = [
            nccl_dump(*(nccl_entry(n) for n in range(1000, 1011))),
            nccl_dump(*(nccl_entry(n) for n in range(1004, 1011))),
        ]
        assert analysed(*ranks) is None

        ranks[1] = add(ranks[1], nccl_entry(1011, "barrier", state="scheduled"))
        ranks[0] = add(ranks[0], nccl_entry(1011, state="started"))
        assert analysed(*ranks).sequence == 1011

    def test_a_mismatch_in_a_group_beside_a_world_that_waits_for_it_is_the_root(self):
        ranks = alike()
        for rank in (2, 3):
            ranks[rank] = add(ranks[rank], nccl_entry(10, state="started"))
        ranks[0] = add(ranks[0], nccl_entry(1, group="1", state="started"))
        ranks[1] = add(ranks[1], nccl_entry(1, "broadcast", group="1", state="started"))
        mismatch = analysed(*ranks)

        assert (mismatch.group, mismatch.description, mismatch.sequence) == ("1", "tensor_parallel", 1)

    def test_a_rank_without_a_dump_is_not_called_missing(self):
        ranks = alike()
        ranks[2] = None

        assert analysed(*ranks) is None

    def test_a_pickle_as_torch_writes_it_is_read(self, tmp_path):
        dump = nccl_dump(nccl_entry(1))
        (tmp_path / "nccl_trace_rank_12").write_bytes(pickle.dumps(dump, protocol=2))
        record = flight_records.read(tmp_path / "nccl_trace_rank_12")

        assert (record.rank, record.members["1"], record.groups["0"][0].operation) == (12, [0, 1], "all_reduce")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


class TestUntrusted:
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_a_pickle_that_would_run_code_is_refused(self, tmp_path, protocol, monkeypatch):
        monkeypatch.chdir(tmp_path)
        path = tmp_path / "trace_rank_0"
        path.write_bytes(pickle.dumps({"entries": [Evil()]}, protocol=protocol))

        with pytest.raises(FlightRecordError):
            flight_records.read(path)
        assert not (tmp_path / "pwned").exists()

    @pytest.mark.parametrize(
        "data",
        [b"", b"\x80", b"\x80\x02}q", b"{", b"[]", b"3", b"\x80\x02]q\x00.", b'{"entries": 7}', b"\xff\xfe",
         b'{"a": 1}', b"\x80\x02}q\x00(X\x07\x00\x00\x00entriesh\x09us.", b"[" * 100_000],
    )  # fmt: skip
    def test_what_is_no_dump_is_said_to_be_none(self, tmp_path, data):
        path = tmp_path / "trace_rank_0"
        path.write_bytes(data)

        with pytest.raises(FlightRecordError):
            flight_records.read(path)

    def test_entries_of_a_future_torch_do_not_stop_the_reading(self):
        odd = [7, {}, {"process_group": None, "collective_seq_id": "x", "frames": 3, "input_sizes": {"a": 1}}]
        record = flight_records.parse({"entries": odd, "pg_config": 9}, 0)

        assert sum(len(group) for group in record.groups.values()) == 2

    def test_a_file_without_a_rank_in_its_name_is_refused(self, tmp_path):
        (tmp_path / "trace").write_text('{"entries": []}')

        with pytest.raises(FlightRecordError, match="no rank"):
            flight_records.read(tmp_path / "trace")

    def test_a_folder_without_dumps_says_so(self, tmp_path):
        (tmp_path / "rank0.txt").write_text("hello")

        with pytest.raises(SpoolError, match="neither a run nor dumps"):
            diagnose_dumps(tmp_path)


class TestOfARun:
    def hanging(self, directory: Path) -> Path:
        """Two ranks that stop at step 20 in their backward."""
        for rank in (0, 1):
            spool = writer(directory, rank, 2)
            for second in range(40):
                step = min(second, 20)
                spool.step(step, 1000.0 + second, {"loss": 1.0}) if second <= 20 else None
                spool.write(Beat(1000.0 + second, float(second), step + 1, "backward", {"0": step}, 0, step))
                if second == 23:
                    frames = {"MainThread": ["/job/train.py:40 train"]}
                    spool.write(Stacks(1000.0 + second, step + 1, "nothing moved", frames))
            spool.write(Event(1041.0, 21, "exit", {"code": 0}))
            spool.close()
        return directory / "made-up"

    def test_dumps_in_its_folder_explain_a_hang(self, tmp_path):
        run = self.hanging(tmp_path)
        before = diagnose_directory(run)
        assert [incident.kind for incident in before.incidents] == ["hang"]
        (run / "flight_records").mkdir()
        for rank, operation in enumerate(("all_reduce", "barrier")):
            dump = nccl_dump(
                *(nccl_entry(n) for n in range(1, 20)), nccl_entry(20, operation, state="started"), world=2
            )
            (run / "flight_records" / f"nccl_trace_rank_{rank}").write_bytes(pickle.dumps(dump, protocol=2))
        (incident,) = diagnose_directory(run).incidents

        assert (incident.kind, incident.cause) == ("hang", "collective_mismatch")
        assert "collective #20 is all_reduce of [[4096]] on rank 0 at train.py:40" in incident.explanation

    def test_dumps_given_by_hand_and_dumps_of_another_run(self, tmp_path):
        run = self.hanging(tmp_path / "runs")
        dumps = tmp_path / "dumps"
        dumps.mkdir()
        for rank in (0, 1):
            extra = [nccl_entry(2, "barrier", state="started")] if rank else [nccl_entry(2, state="started")]
            (dumps / f"rank_{rank}").write_bytes(pickle.dumps(nccl_dump(nccl_entry(1), *extra, world=2), protocol=4))

        assert "#2" in diagnose_directory(run, flight_records=dumps).incidents[0].explanation

    def test_a_mismatch_in_a_run_that_looks_well_is_an_incident(self, tmp_path):
        for rank in (0, 1):
            train(writer(tmp_path, rank, 2), [1.0] * 30)
        run = tmp_path / "made-up"
        (run / "flight_records").mkdir()
        for rank, size in enumerate((3, 4)):
            dump = nccl_dump(nccl_entry(1, sizes=((size,),)), world=2)
            (run / "flight_records" / f"rank{rank}.json").write_text(json.dumps(dump))
        (incident,) = diagnose_directory(run).incidents

        assert (incident.kind, incident.cause) == ("collective_mismatch", "collective_mismatch")
