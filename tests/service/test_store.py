"""The store: one owner, one transaction, retention, versions; and who counts as alive."""

import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torchvitals.agent import lifecycle, logs
from torchvitals.agent.incident import Incident
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.rows import RowBatch
from torchvitals.agent.service import ListenError, listen, main
from torchvitals.agent.store import RunRow, Store, StoreError, StoreLockedError
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Hello, Step


def incident(identity: str) -> Incident:
    return Incident(
        id=identity,
        kind="nonfinite",
        severity="critical",
        first_step=1,
        detected_step=1,
        rank=None,
        where="",
        cause="unknown",
        confidence=1.0,
        causes=[],
        title="t",
        explanation="e",
        remedy="r",
    )


def batch_of(steps: int) -> RowBatch:
    batch = RowBatch()
    for step in range(steps):
        batch.add(Entry(Hello(run="r"), Step(step, float(step), {"loss": 1.0})))
    return batch


def test_the_holder_of_a_locked_store_is_named(tmp_path: Path) -> None:
    file = tmp_path / "agent.duckdb"
    with Store(file):
        code = f"from torchvitals.agent.store import Store; Store({str(file)!r})"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    said = done.stderr.strip().splitlines()[-1]
    assert "StoreLockedError" in said
    assert f"held by process {os.getpid()}" in said
    assert f"kill {os.getpid()}" in said


def test_a_foreign_file_and_another_version_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "notes.duckdb").write_text("not a database" * 1000)
    with pytest.raises(StoreError, match=r"cannot open .*notes\.duckdb.*choose another file") as refused:
        Store(tmp_path / "notes.duckdb")
    assert "\n" not in str(refused.value)
    assert not isinstance(refused.value, StoreLockedError)

    file = tmp_path / "agent.duckdb"
    with Store(file) as store, store.transaction() as cursor:
        cursor.execute("UPDATE meta SET value = '99'")
    with pytest.raises(StoreError, match=r"store version 99, this torchvitals has \d+"):
        Store(file)


def test_a_commit_is_whole_or_not_at_all() -> None:
    with Store(":memory:") as store:
        broken = RunRow(run="r", steps="many")  # type: ignore[arg-type]
        with pytest.raises(Exception, match="many"):
            store.commit(broken, batch=batch_of(10), incidents=[incident("i")])
        assert store.query("SELECT * FROM scalars") == []
        store.commit(RunRow(run="r"), batch=batch_of(10), incidents=[incident("i")])
        assert len(store.query("SELECT * FROM scalars")) == 10


def test_retention_deletes_old_runs_with_all_they_left_and_nothing_else() -> None:
    with Store(":memory:") as store:
        store.commit(RunRow(run="old", ended=100.0), batch=batch_of(5), incidents=[incident("i-old")])
        store.commit(RunRow(run="new", ended=900.0), batch=batch_of(5), incidents=[incident("i-new")])
        store.commit(RunRow(run="running"), batch=batch_of(5))
        assert store.delete_ended_before(500.0) == 1

        for table in ("runs", "scalars", "incidents"):
            assert "old" not in {row["run"] for row in store.query(f"SELECT run FROM {table}")}
        assert {row["run"] for row in store.query("SELECT run FROM scalars")} == {"new", "running"}
        assert [i["id"] for i in lifecycle.incidents(store)] == ["i-new"]


def proc_with(tmp_path: Path, pid: int, state: str = "S", started: float = 500.0) -> Path:
    ticks = int(started * os.sysconf("SC_CLK_TCK"))
    (tmp_path / str(pid)).mkdir(exist_ok=True)
    (tmp_path / "stat").write_text("cpu 1 2\nbtime 1000\n")
    fields = " ".join(["0"] * 18)
    (tmp_path / str(pid) / "stat").write_text(f"{pid} (a ) name) {state} {fields} {ticks} 0\n")
    return tmp_path


def test_who_is_gone(tmp_path: Path) -> None:
    proc = proc_with(tmp_path, 42)  # started at 1500
    liveness = Liveness(silent_after=120.0, clock=lambda: 9999.0, host="here", proc=proc)
    writer = Hello(host="here", pid=42, started=1501.0)
    assert not liveness.is_gone(writer, last_seen=1501.0)  # silent for hours, and alive: a hang
    assert liveness.is_gone(Hello(host="here", pid=43, started=1501.0), 9999.0)
    assert liveness.is_gone(Hello(host="here", pid=42, started=1000.0), 9999.0)  # its number went to another process
    assert not liveness.is_gone(Hello(host="there", pid=43), last_seen=9900.0)
    assert liveness.is_gone(Hello(host="there", pid=43), last_seen=9000.0)
    assert liveness.is_gone(Hello(host="there", pid=43), last_seen=float("nan"))
    proc_with(tmp_path, 42, state="Z")
    assert liveness.is_gone(writer, 9999.0)


def test_a_taken_port_is_one_line_with_what_to_type(capsys, tmp_path: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=f"torchvitals agent --port {port + 1}"):
            listen("127.0.0.1", port)
        assert main(["--port", str(port), "--directory", str(tmp_path)], {}) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"127.0.0.1:{port}" in said


def test_the_log_is_json_where_nobody_reads_it() -> None:
    stream = io.StringIO()
    logs.configure("auto", stream)
    try:
        logging.getLogger("torchvitals.agent").info("%d runs", 3)
        line = json.loads(stream.getvalue())
        assert (line["level"], line["message"]) == ("info", "3 runs")
    finally:
        for name in ("torchvitals", "uvicorn"):
            logging.getLogger(name).handlers.clear()
            logging.getLogger(name).propagate = True
