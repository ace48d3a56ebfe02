"""``torchvitals export RUN``: step, time, rank, signal, axis entry, value, one row each."""

import argparse
import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

from torchvitals.agent.errors import CommandError
from torchvitals.agent.readings import unpacked
from torchvitals.agent.run_lookup import LATEST, find_run
from torchvitals.agent.run_state import merged
from torchvitals.signals.reader import Entry, RunReader
from torchvitals.signals.records import Profile, Requests, Step, Window, unpack_floats
from torchvitals.signals.spool import default_directory

BATCH_ROWS = 65_536
"""Rows per Parquet row group while writing."""


class Row(NamedTuple):
    """One number. ``entry`` is the name of the axis entry, empty for scalars."""

    step: int
    time: float
    rank: int
    optimizer: int
    signal: str
    entry: str
    value: float


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=LATEST, help="a run, its name, a directory, or: latest")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    parser.add_argument("--signals", default="", help="comma-separated names; all by default")
    parser.add_argument("--format", choices=("jsonl", "csv", "parquet"), default="jsonl")
    parser.add_argument("--output", type=Path, default=None, metavar="FILE", help="instead of standard output")


def execute(args: argparse.Namespace) -> int:
    reader = RunReader(find_run(args.run, args.dir or default_directory()))
    wanted = {name for name in args.signals.split(",") if name}
    found = rows(merged(process.read() for process in reader.processes.values()), wanted)
    if args.format == "parquet":
        if args.output is None:
            raise CommandError("Parquet is not text; name a file with --output FILE")
        _write_parquet(found, args.output)
        return 0
    write = _write_csv if args.format == "csv" else _write_lines
    if args.output is None:
        write(found, sys.stdout)
        return 0
    try:
        with args.output.open("w", encoding="utf-8", newline="") as file:
            write(found, file)
    except OSError as error:
        raise CommandError(f"cannot write {args.output}: {error.strerror}; give another --output") from error
    return 0


def rows(entries: Iterable[Entry], wanted: set[str]) -> Iterator[Row]:
    """All numbers of a run, or those of the ``wanted`` signals."""
    for entry in entries:
        for row in _rows_of(entry):
            if not wanted or row.signal in wanted:
                yield row


def _rows_of(entry: Entry) -> Iterator[Row]:
    record, rank = entry.record, entry.hello.rank
    if isinstance(record, Step):
        for name, value in record.values.items():
            yield Row(record.step, record.time, rank, record.optimizer, str(name), "", float(value))
    elif isinstance(record, Requests):
        for offset, value in enumerate(unpack_floats(record.latencies).tolist()):
            yield Row(record.first + offset, record.time, rank, 0, "latency_seconds", "", value)
    elif isinstance(record, Profile | Window) and entry.axis is not None:
        step, optimizer = (record.step, record.optimizer) if isinstance(record, Profile) else (record.first, 0)
        for name, values in unpacked(record).items():
            for label, value in zip(entry.axis.entries, values.tolist(), strict=False):
                yield Row(step, record.time, rank, optimizer, name, label, value)


def _write_lines(found: Iterable[Row], file: IO[str]) -> None:
    for row in found:
        file.write(json.dumps({**row._asdict(), "value": _plain(row.value)}) + "\n")


def _plain(value: float) -> float | str:
    """JSON knows no NaN: non-finite numbers become the strings that the API uses too."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _write_csv(found: Iterable[Row], file: IO[str]) -> None:
    writer = csv.writer(file)
    writer.writerow(Row._fields)
    writer.writerows(found)


def _write_parquet(found: Iterable[Row], path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    kinds = (pa.int64(), pa.float64(), pa.int32(), pa.int32(), pa.string(), pa.string(), pa.float64())
    schema = pa.schema(list(zip(Row._fields, kinds, strict=True)))
    try:
        with parquet.ParquetWriter(path, schema) as writer:
            for batch in _batches(found):
                columns = list(zip(*batch, strict=True))
                writer.write_table(
                    pa.table([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], schema=schema)
                )
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error}; give another --output") from error


def _batches(found: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in found:
        batch.append(row)
        if len(batch) >= BATCH_ROWS:
            yield batch
            batch = []
    if batch:
        yield batch
