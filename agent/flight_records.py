"""Dumps of torch's flight recorder, one file per rank, as torch writes them: pickle (NCCL watchdog) or JSON.

A pickle is a program. These are read by an unpickler that knows no classes at all: what the recorder writes are
dictionaries, lists, tuples, strings and numbers, and a file that asks for anything else is refused.
"""

import io
import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

MOST_BYTES = 512 << 20
"""A ring of 2000 entries with stacks is about 2 MB; nobody's ring is hundreds of times as long."""
NUMBER = re.compile(r"(\d+)(?!.*\d)")
"""The last number in a file name: ``nccl_trace_rank_3``, ``rank3.json``, ``host7_rank_12.pickle``."""


class FlightRecordError(Exception):
    """A file that is no dump of a flight recorder; the message says what was seen."""


class Collective(msgspec.Struct, frozen=True):
    """One entry of the ring. ``frames`` are ``file:line function``, innermost last."""

    sequence: int
    operation: str
    sizes: list[Any]
    output_sizes: list[Any]
    dtypes: list[str]
    finished: bool
    created: int
    frames: list[str] = []
    p2p: bool = False


class FlightRecord(msgspec.Struct):
    """What one rank's ring holds: process group → its collectives in order, and the group's members where told."""

    rank: int
    groups: dict[str, list[Collective]]
    descriptions: dict[str, str]
    members: dict[str, list[int]]
    completed: dict[str, int]
    """Group → number of the last collective that has completed, where the backend counts them."""


class Unread(NamedTuple):
    """A file in the folder that could not be taken for a dump, and why."""

    path: Path
    why: str


class _Plain(pickle.Unpickler):
    """Knows no classes and no functions: nothing can be called."""

    def find_class(self, module: str, name: str) -> Any:
        raise FlightRecordError(f"it asks for {module}.{name}; a flight recorder's dump holds plain values only")

    def persistent_load(self, pid: Any) -> Any:
        raise FlightRecordError(f"it refers to something outside of itself ({str(pid)[:40]})")


def read_folder(paths: Iterable[Path]) -> tuple[dict[int, FlightRecord], list[Unread]]:
    """The dumps among ``paths`` by rank, and the files that are none."""
    records: dict[int, FlightRecord] = {}
    unread: list[Unread] = []
    for path in sorted(paths):
        try:
            record = read(path)
        except FlightRecordError as error:
            unread.append(Unread(path, str(error)))
            continue
        if record.rank in records:
            unread.append(Unread(path, f"another file was taken for rank {record.rank}"))
        else:
            records[record.rank] = record
    return records, unread


def read(path: Path) -> FlightRecord:
    """One dump.

    Raises:
        FlightRecordError: unreadable, not a dump, or no rank in its name.

    """
    number = NUMBER.search(path.name)
    if number is None:
        raise FlightRecordError("no rank in its name; torch names the files <prefix><rank>")
    return parse(_load(path), int(number.group(1)))


def _load(path: Path) -> Any:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise FlightRecordError(f"larger than {MOST_BYTES >> 20} MB")
        data = path.read_bytes()
    except OSError as error:
        raise FlightRecordError(error.strerror or str(error)) from error
    try:
        if data[:1] == b"\x80":
            return _Plain(io.BytesIO(data)).load()
        return json.loads(data)
    except (ValueError, EOFError, pickle.UnpicklingError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise FlightRecordError(f"neither JSON nor a whole pickle: {error}") from error
    except (MemoryError, RecursionError, OverflowError) as error:
        raise FlightRecordError(f"not to be unpickled: {type(error).__name__}") from error


def parse(dump: Any, rank: int) -> FlightRecord:
    """A dump as torch has it in memory.

    Raises:
        FlightRecordError: it is none.

    """
    if not isinstance(dump, Mapping) or not isinstance(dump.get("entries", []), list) or not _looks_like(dump):
        raise FlightRecordError("it has no `entries` and no `pg_status` as a flight recorder's dump has")
    record = FlightRecord(rank, {}, {}, _members(dump.get("pg_config")), _completed(dump.get("pg_status")))
    for entry in dump.get("entries", []):
        if isinstance(entry, Mapping):
            _take(record, entry)
    for collectives in record.groups.values():
        collectives.sort(key=lambda each: (each.p2p, each.sequence, each.created))
    return record


def _looks_like(dump: Mapping[str, Any]) -> bool:
    return "entries" in dump or "pg_status" in dump


def _take(record: FlightRecord, entry: Mapping[str, Any]) -> None:
    named = entry.get("process_group")
    name, described = (*named, "")[:2] if isinstance(named, list | tuple) and named else (entry.get("pg_id", ""), "")
    group = str(name)
    record.descriptions.setdefault(group, str(described))
    p2p = bool(entry.get("is_p2p"))
    finished = bool(entry.get("retired")) or str(entry.get("state")) == "completed"
    record.groups.setdefault(group, []).append(
        Collective(
            sequence=_integer(entry.get("p2p_seq_id" if p2p else "collective_seq_id", entry.get("seq_id"))),
            operation=str(entry.get("profiling_name") or "collective").rpartition(":")[2],
            sizes=_plain(entry.get("input_sizes")),
            output_sizes=_plain(entry.get("output_sizes")),
            dtypes=[str(each) for each in _plain(entry.get("input_dtypes"))],
            finished=finished,
            created=_integer(entry.get("time_created_ns")),
            frames=_frames(entry.get("frames")),
            p2p=p2p,
        )
    )


def _plain(value: Any) -> list[Any]:
    """Lists for tuples, all the way down, so that a pickle and a JSON dump of one ring are equal."""
    if not isinstance(value, list | tuple):
        return []
    return [_plain(each) if isinstance(each, list | tuple) else each for each in value]


def _integer(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return 0


def _frames(frames: Any) -> list[str]:
    """``file:line function``, innermost last; torch has the innermost first."""
    if not isinstance(frames, list | tuple):
        return []
    told = [f for f in frames if isinstance(f, Mapping)]
    return [f"{f.get('filename', '')}:{f.get('line', 0)} {f.get('name', '')}" for f in reversed(told)]


def _completed(status: Any) -> dict[str, int]:
    told = status.items() if isinstance(status, Mapping) else ()
    return {str(k): _integer(v.get("last_completed_collective")) for k, v in told if isinstance(v, Mapping)}


def _members(config: Any) -> dict[str, list[int]]:
    """Group → ranks, where the backend wrote them down: NCCL does, gloo leaves one nameless entry."""
    found = {}
    for name, told in config.items() if isinstance(config, Mapping) else ():
        ranks = told.get("ranks") if isinstance(told, Mapping) else None
        try:
            members = json.loads(ranks) if isinstance(ranks, str) else ranks
        except ValueError:
            continue
        if isinstance(members, list) and members and all(isinstance(rank, int) for rank in members):
            found[str(name)] = members
    return found
