"""Reading back what a test's job wrote."""

from collections.abc import Iterator
from pathlib import Path

from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import Event, Profile, Step, unpack_floats


def only_run(directory: Path) -> Path:
    """The one run below ``directory``."""
    runs = [child for child in directory.iterdir() if child.is_dir()]
    assert len(runs) == 1, runs
    return runs[0]


def records(directory: Path) -> Iterator[object]:
    """All records of the one run, in order."""
    for entry in RunReader(only_run(directory)).read():
        yield entry.record


def steps(directory: Path, optimizer: int = 0) -> list[Step]:
    """The step records of one optimizer."""
    return [r for r in records(directory) if isinstance(r, Step) and r.optimizer == optimizer]


def series(directory: Path, signal: str, optimizer: int = 0) -> dict[int, float]:
    """Step → value of one signal."""
    return {r.step: r.values[signal] for r in steps(directory, optimizer) if signal in r.values}


def profiles(directory: Path, signal: str, optimizer: int = 0) -> dict[int, list[float]]:
    """Step → values of one profile signal."""
    return {
        r.step: unpack_floats(r.values[signal]).tolist()
        for r in records(directory)
        if isinstance(r, Profile) and signal in r.values and r.optimizer == optimizer
    }


def events(directory: Path, kind: str) -> list[Event]:
    """The events of one kind."""
    return [r for r in records(directory) if isinstance(r, Event) and r.kind == kind]
