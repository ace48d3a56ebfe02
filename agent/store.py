"""DuckDB, owned by the agent alone: what was measured, how far each file was read, and what became of incidents.

Everybody else asks the agent over HTTP. One writer at a time; readers use cursors of their own and see
the last commit.
"""

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import msgspec
import pyarrow as pa
from torchvitals.agent import schema
from torchvitals.agent.incident import Incident
from torchvitals.agent.rows import RowBatch, encode_json

IN_MEMORY = ":memory:"
StoreFailure = duckdb.Error
"""What any statement may raise: disk full, out of memory."""


class StoreError(Exception):
    """The store cannot be opened; the message says why and what to do."""


class StoreLockedError(StoreError):
    """Another process has the file open."""


class RunRow(msgspec.Struct, kw_only=True):
    """One row of ``runs``; fields in the table's order."""

    run: str
    name: str = ""
    state: str = "running"
    role: str = "train"
    host: str = ""
    command: str = ""
    world_size: int = 1
    ranks: int = 0
    steps: int = 0
    started: float = 0.0
    last_seen: float = 0.0
    ended: float | None = None
    loss: float | None = None
    steps_per_second: float | None = None
    first_read: float = 0.0
    facts: str = "{}"
    checked: str = "[]"
    not_checked: str = "[]"


class ProcessRow(msgspec.Struct, kw_only=True):
    """One row of ``processes``: who, and up to where its files were committed."""

    run: str
    process: str
    rank: int = 0
    pid: int = 0
    host: str = ""
    segment: int = -1
    position: int = 0
    last_step: int = -1
    last_seen: float = 0.0
    state: str = "running"
    dropped: int = 0
    corrupt: int = 0


class Store:
    """The open database.

    Args:
        path: the file, or ``":memory:"``.
        memory_limit: as DuckDB writes it, ``1GB``.

    Raises:
        StoreLockedError: another agent has it open; the message names its process.
        StoreError: it cannot be opened, or another version of torchvitals made it.

    """

    def __init__(self, path: Path | str, *, memory_limit: str = "1GB") -> None:
        self.path = str(path)
        self._connection = _connect(self.path, memory_limit)
        self._writing = threading.Lock()
        with ExitStack() as failing:
            failing.callback(self._connection.close)
            self._prepare()
            failing.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Finish the write in progress and close the file."""
        with self._writing:
            self._connection.close()

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a statement as dictionaries; ``?`` takes ``parameters`` in order."""
        return self._rows(sql, list(parameters))

    def named_query(self, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The same with ``$name``."""
        return self._rows(sql, dict(parameters))

    def _rows(self, sql: str, parameters: list[Any] | dict[str, Any]) -> list[dict[str, Any]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A cursor whose statements all happen or none does; writers take turns."""
        with self._writing, self._connection.cursor() as cursor:
            cursor.begin()
            done = False
            try:
                yield cursor
                done = True
            finally:
                if not done:
                    cursor.rollback()
            cursor.commit()  # rolls back by itself when it fails

    def commit(
        self,
        run: RunRow,
        processes: Sequence[ProcessRow] = (),
        batch: RowBatch | None = None,
        incidents: Sequence[Incident] = (),
        withdrawn: Sequence[str] = (),
        *,
        now: float = 0.0,
    ) -> None:
        """Write rows, positions and incidents of one run: all of them or, when this raises, none.

        ``withdrawn`` are ids of incidents that turned out to be part of others.
        """
        tables = batch.tables() if batch else {}
        with self.transaction() as cursor:
            if batch:
                _forget_grown(cursor, run.run, batch)
            for name, table in tables.items():
                _insert(cursor, name, run.run, table)
            for process in processes:
                cursor.execute(schema.MERGE_PROCESS, msgspec.structs.astuple(process))
            cursor.execute(schema.MERGE_RUN, msgspec.structs.astuple(run))
            for incident in incidents:
                cursor.execute(schema.MERGE_INCIDENT, _incident_row(run.run, incident, now))
            if withdrawn:
                cursor.execute(schema.WITHDRAW, [now, list(withdrawn)])

    def positions(self, run: str) -> dict[str, tuple[int, int]]:
        """Process directory → (segment, byte) up to which its rows are committed."""
        rows = self.query("SELECT process, segment, position FROM processes WHERE run = ?", [run])
        return {row["process"]: (row["segment"], row["position"]) for row in rows}

    def delete_ended_before(self, limit: float) -> int:
        """Delete the runs that ended before ``limit`` with all their rows; return how many."""
        ended = self.query("SELECT run FROM runs WHERE ended < ?", [limit])
        for row in ended:
            with self.transaction() as cursor:
                for table in (*schema.ROW_TABLES, "runs", "incidents"):
                    cursor.execute(f"DELETE FROM {table} WHERE run = ?", [row["run"]])  # noqa: S608  our own names
        if ended:
            with self.transaction() as cursor:
                cursor.execute("DELETE FROM deliveries WHERE incident NOT IN (SELECT id FROM incidents)")
        return len(ended)

    def _prepare(self) -> None:
        with self.transaction() as cursor:
            for statement in schema.TABLES:
                cursor.execute(statement)
            found = cursor.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
            if found is None:
                cursor.execute("INSERT INTO meta VALUES ('version', ?)", [str(schema.STORE_VERSION)])
        if found is not None and found[0] != str(schema.STORE_VERSION):
            raise StoreError(
                f"{self.path} was made by store version {found[0]}, this torchvitals has {schema.STORE_VERSION}; "
                "move the file away: everything in it is read again from the spool"
            )


def _connect(path: str, memory_limit: str) -> duckdb.DuckDBPyConnection:
    try:
        if path != IN_MEMORY:
            Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return duckdb.connect(path, config={"memory_limit": memory_limit, "threads": 2})
    except OSError as error:
        raise StoreError(f"cannot create {Path(path).parent}: {error.strerror}; choose --database FILE") from error
    except duckdb.Error as error:
        raise _why_not(path, error) from error


def _why_not(path: str, error: duckdb.Error) -> StoreError:
    text = str(error)
    if "lock" in text and (holder := re.search(r"PID (\d+)", text)):
        return StoreLockedError(
            f"{path} is held by process {holder[1]}: an agent is running; use it, or end it with: kill {holder[1]}"
        )
    return StoreError(f"cannot open {path}: {text.splitlines()[0]}; choose another file with --database FILE")


def _forget_grown(cursor: duckdb.DuckDBPyConnection, run: str, batch: RowBatch) -> None:
    """An axis that grew is written anew."""
    for rank, axis in batch.axis_entries:
        cursor.execute("DELETE FROM axis_entries WHERE run = ? AND rank = ? AND axis = ?", [run, rank, axis])


def _insert(cursor: duckdb.DuckDBPyConnection, name: str, run: str, table: pa.Table) -> None:
    columns = ", ".join(table.column_names)
    cursor.register("incoming", table)
    cursor.execute(f"INSERT INTO {name} (run, {columns}) SELECT ?, {columns} FROM incoming", [run])  # noqa: S608  ours
    cursor.unregister("incoming")


def _incident_row(run: str, incident: Incident, now: float) -> tuple[Any, ...]:
    return (
        incident.id,
        run,
        incident.kind,
        incident.severity,
        incident.first_step,
        incident.detected_step,
        incident.rank,
        incident.where,
        incident.cause,
        incident.confidence,
        incident.title,
        encode_json(incident),
        now,
    )
