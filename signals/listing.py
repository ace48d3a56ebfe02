"""Where runs lie on the disk: ``<directory>/<run_id>/<rank>.<pid>/<n>.spool``, and what a look from outside tells."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torchvitals.signals import frames
from torchvitals.signals.records import LAUNCHER_RANK, Hello


class SpoolError(Exception):
    """A spool that cannot be read; the message says what was seen and what to do."""


class NotARunError(SpoolError):
    """The directory holds no run."""


class UnknownSchemaError(SpoolError):
    """The spool was written by an incompatible version."""


class UnreadableError(SpoolError):
    """The file system does not let us read a run."""


class RunListing(NamedTuple):
    """What a directory listing tells of a run without reading it through."""

    run: str
    name: str
    path: Path
    started: float
    last_written: float
    world_size: int
    processes: int
    host: str
    command: str


def list_runs(directory: Path) -> list[RunListing]:
    """The runs below ``directory``, the latest started last; foreign and unreadable folders are passed over.

    Raises:
        UnreadableError: ``directory`` itself cannot be listed.

    """
    if not directory.is_dir():
        return []
    try:
        children = [child for child in directory.iterdir() if child.is_dir()]
    except OSError as error:
        raise UnreadableError(f"{directory} cannot be listed: {error}") from error
    found = [listing for child in children if (listing := _listing(child))]
    return sorted(found, key=lambda listing: (listing.started, listing.run))


def first_hello(path: Path) -> Hello | None:
    """The ``Hello`` that opens the first readable segment of a process directory."""
    for number in sorted(segments(path)):
        try:
            with (path / f"{number}.spool").open("rb") as file:
                frame = next(frames.scan(file.read(1 << 16)), None)
        except OSError:
            continue
        if frame is not None and isinstance(frame.record, Hello):
            return frame.record
    return None


def _listing(path: Path) -> RunListing | None:
    try:
        directories = list(process_directories(path))
    except OSError:
        return None
    hellos = [hello for child in directories if (hello := first_hello(child))]
    if not hellos:
        return None
    launcher = next((hello for hello in hellos if hello.rank == LAUNCHER_RANK), None)
    workers = [hello for hello in hellos if hello.rank != LAUNCHER_RANK]
    speaker = launcher or workers[0]
    return RunListing(
        run=path.name,
        name=speaker.name,
        path=path,
        started=min(hello.started for hello in hellos),
        last_written=max((_last_written(child) for child in directories), default=0.0),
        world_size=max((hello.world_size for hello in workers), default=0),
        processes=len(workers),
        host=speaker.host,
        command=speaker.command,
    )


def process_directories(path: Path) -> Iterator[Path]:
    """The directories in the run ``path`` that a process wrote; OSError when it cannot be listed."""
    for child in sorted(path.iterdir()):
        rank, _, pid = child.name.partition(".")
        if rank.removeprefix("-").isdecimal() and pid.isdecimal() and child.is_dir() and segments(child):
            yield child


def segments(path: Path) -> list[int]:
    """The segment numbers in a process directory, in no order; none when it cannot be listed."""
    try:
        return [int(file.stem) for file in path.iterdir() if file.suffix == ".spool" and file.stem.isdecimal()]
    except OSError:
        return []


def _last_written(path: Path) -> float:
    """Latest modification among the segments, never in the future of this host's clock."""
    times = []
    for number in segments(path):
        try:
            times.append((path / f"{number}.spool").stat().st_mtime)
        except OSError:
            continue
    return min(max(times, default=0.0), time.time())
