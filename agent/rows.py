"""Records become rows: the columns of one commit, gathered in lists and handed to DuckDB as Arrow tables."""

from itertools import repeat
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from torchvitals.agent.schema import AXIS_KINDS
from torchvitals.signals.reader import Entry
from torchvitals.signals.records import Axis, Event, Profile, Requests, Stacks, Step, Window, unpack_floats
from torchvitals.signals.spool import SIGNAL_AXIS

REQUEST_SIGNALS = ("latency_seconds", "request_failed", "batch_items")


def encode_json(value: Any) -> str:
    """JSON in which non-finite numbers are the strings "NaN", "Infinity" and "-Infinity".

    >>> encode_json({"loss": float("nan"), "at": [1, float("-inf")]})
    '{"loss":"NaN","at":[1,"-Infinity"]}'
    """
    return msgspec.json.encode(plain(value)).decode()


def plain(value: Any) -> Any:
    """``value`` in JSON's own types, non-finite numbers as strings."""
    if isinstance(value, float):
        return value if np.isfinite(value) else _nonfinite(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    return plain(msgspec.to_builtins(value, enc_hook=_foreign))


def _nonfinite(value: float) -> str:
    if value != value:  # noqa: PLR0124  NaN is what differs from itself
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _foreign(value: Any) -> Any:
    """Numpy scalars and arrays in evidence; anything else by its text."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    return str(value)


class _Columns:
    """Parallel lists, one per column of a table."""

    def __init__(self, **types: pa.DataType) -> None:
        self._types = types
        self.clear()

    def clear(self) -> None:
        self.data: dict[str, list[Any]] = {name: [] for name in self._types}

    def __len__(self) -> int:
        return len(next(iter(self.data.values())))

    def extend(self, count: int, **values: Any) -> None:
        """Append ``count`` rows; a value that is no list, array or dict view is repeated."""
        for name, column in self.data.items():
            value = values[name]
            column.extend(repeat(value, count) if isinstance(value, str | int | float) else value)

    def table(self) -> pa.Table:
        return pa.table({name: pa.array(self.data[name], kind) for name, kind in self._types.items()})


class RowBatch:
    """The rows of one run that wait for their commit."""

    def __init__(self) -> None:
        scalars = {"rank": pa.int32(), "optimizer": pa.int32(), "signal": pa.string(), "step": pa.int64()}
        values = {**scalars, "time": pa.float64(), "axis": pa.string(), "entry": pa.int32(), "value": pa.float32()}
        self._scalars = _Columns(**scalars, time=pa.float64(), value=pa.float64())
        self._axes = {f"{kind}_values": _Columns(**values) for kind in (*AXIS_KINDS, "other")}
        self._events = _Columns(
            rank=pa.int32(), time=pa.float64(), step=pa.int64(), kind=pa.string(), details=pa.string()
        )
        self.axis_entries: dict[tuple[int, str], Axis] = {}
        """Axes declared or grown since the last commit, by rank and key."""
        self._known: dict[tuple[int, str], list[str]] = {}

    def __len__(self) -> int:
        """Rows that wait."""
        return len(self._scalars) + len(self._events) + sum(map(len, self._axes.values())) + len(self.axis_entries)

    def add(self, entry: Entry) -> None:
        """Take the rows of one record; records that are no rows (beats, digests) leave none."""
        record, rank = entry.record, entry.hello.rank
        if isinstance(record, Step):
            self._add_step(rank, record)
        elif isinstance(record, Profile):
            self._add_values(entry, record.step, record.values, record.optimizer)
        elif isinstance(record, Window):
            self._add_values(entry, record.first, record.values)
        elif isinstance(record, Requests):
            self._add_requests(rank, record)
        elif isinstance(record, Axis):
            self.declare(rank, record)
        elif isinstance(record, Event):
            self._add_event(rank, record.time, record.step, record.kind, record.details)
        elif isinstance(record, Stacks):
            details = {"reason": record.reason, "threads": record.threads}
            self._add_event(rank, record.time, record.step, "stacks", details)

    def declare(self, rank: int, axis: Axis, *, stored: bool = False) -> None:
        """Remember the names of an axis; unless ``stored``, they are written if they are new."""
        if axis.key == SIGNAL_AXIS or self._known.get((rank, axis.key)) == axis.entries:
            return
        self._known[rank, axis.key] = axis.entries
        if not stored:
            self.axis_entries[rank, axis.key] = axis

    def clear(self) -> None:
        """Forget what has been committed."""
        for columns in (self._scalars, self._events, *self._axes.values()):
            columns.clear()
        self.axis_entries.clear()

    def tables(self) -> dict[str, pa.Table]:
        """Table name → rows, without the run's column; empty tables are left out."""
        columns = {"scalars": self._scalars, "events": self._events, **self._axes}
        tables = {name: column.table() for name, column in columns.items() if len(column)}
        if self.axis_entries:
            tables["axis_entries"] = self._axis_table()
        return tables

    def _add_step(self, rank: int, step: Step) -> None:
        self._scalars.extend(
            len(step.values),
            rank=rank,
            optimizer=step.optimizer,
            signal=map(str, step.values),
            step=step.step,
            time=step.time,
            value=step.values.values(),
        )

    def _add_requests(self, rank: int, requests: Requests) -> None:
        latencies = unpack_floats(requests.latencies)
        failed = np.zeros(len(latencies))
        failed[[offset for offset in requests.errors if 0 <= offset < len(failed)]] = 1.0
        items = np.frombuffer(requests.items, dtype="<i4").astype(np.float64)
        for signal, values in zip(REQUEST_SIGNALS, (latencies, failed, items), strict=True):
            self._scalars.extend(
                len(values),
                rank=rank,
                optimizer=0,
                signal=signal,
                step=range(requests.first, requests.first + len(values)),
                time=requests.time,
                value=values.tolist(),
            )

    def _add_values(self, entry: Entry, step: int, values: dict[str, bytes], optimizer: int = 0) -> None:
        axis, rank, time = entry.axis, entry.hello.rank, getattr(entry.record, "time", 0.0)
        kind = axis.kind if axis else "other"
        columns = self._axes.get(f"{kind}_values", self._axes["other_values"])
        for signal, data in values.items():
            numbers = unpack_floats(data)
            columns.extend(
                len(numbers),
                rank=rank,
                optimizer=optimizer,
                signal=signal,
                step=step,
                time=time,
                axis=axis.key if axis else "",
                entry=range(len(numbers)),
                value=numbers.tolist(),
            )

    def _add_event(self, rank: int, time: float, step: int, kind: str, details: dict[str, Any]) -> None:
        self._events.extend(1, rank=rank, time=time, step=step, kind=kind, details=encode_json(details))

    def _axis_table(self) -> pa.Table:
        columns = _Columns(rank=pa.int32(), axis=pa.string(), kind=pa.string(), entry=pa.int32(), name=pa.string())
        for (rank, key), axis in self.axis_entries.items():
            count = len(axis.entries)
            columns.extend(count, rank=rank, axis=key, kind=axis.kind, entry=range(count), name=axis.entries)
        return columns.table()
