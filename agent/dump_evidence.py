"""Dumps of torch's flight recorder that belong to a run, among the evidence of its diagnosis."""

from collections.abc import Iterable
from pathlib import Path

from torchvitals.agent.collective_order import Mismatch, details, first_mismatch
from torchvitals.agent.engine import NotChecked
from torchvitals.agent.flight_records import read_folder
from torchvitals.agent.run_state import RunState
from torchvitals.detectors.detector import Finding
from torchvitals.signals.records import Event

FOLDER = "flight_records"
"""Below a run's directory: dumps that somebody put there are read without being asked for."""


def dumps_of(run: Path, asked: Path | None, events: Iterable[Event], started: float) -> list[Path]:
    """The dump files that belong to a run: in the folder asked for, its own folder, and where torch was told to write.

    Of the last only what was written after the run ``started``: the next run overwrites the same files.
    """
    found = [file for folder in (asked, run / FOLDER) if folder for file in files_in(folder)]
    for prefix in [prefix for event in events if (prefix := event.details.get("flight_records"))]:
        place = Path(str(prefix))
        found += [f for f in files_in(place.parent) if f.name.startswith(place.name) and f.stat().st_mtime >= started]
    return list(dict.fromkeys(found))


def files_in(folder: Path) -> list[Path]:
    """The plain files in ``folder``; none when there is no such folder."""
    try:
        return sorted(file for file in folder.iterdir() if file.is_file())
    except OSError:
        return []


def take_dumps(state: RunState, run: Path, asked: Path | None) -> Mismatch | None:
    """Read the dumps that belong to a run."""
    commands = [event for event in state.engine.launcher_events if event.kind == "command"]
    started = min((process.hello.started for process in state.engine.processes.values()), default=0.0)
    return take(state, dumps_of(run, asked, commands, started))


def take(state: RunState, paths: Iterable[Path]) -> Mismatch | None:
    """Read the dumps and put what they show among the events of the run, where causes look."""
    records, unread = read_folder(paths)
    state.diagnosis.problems += [NotChecked(f"dump {each.path.name}", each.why) for each in unread]
    mismatch = first_mismatch(records)
    if mismatch is not None:
        time = max((process.last_seen for process in state.engine.processes.values()), default=0.0)
        state.engine.launcher_events.append(Event(time, -1, "flight_records", details(mismatch)))
    return mismatch


def add_finding(state: RunState, mismatch: Mismatch) -> None:
    """Different collectives are a fault where nothing else was found, too: the deadlock is still to come."""
    if mismatch.proves and not any(incident.kind in ("hang", "crash") for incident in state.incidents):
        step = max((process.last_step for process in state.engine.processes.values()), default=0)
        state.engine.add(finding_of(mismatch, max(step, 0)))
        state.diagnosis.update()


def finding_of(mismatch: Mismatch, step: int) -> Finding:
    unfinished = mismatch.verdict in ("UNFINISHED", "COLLECTIVE_STATE_MISMATCH")
    return Finding(
        kind="hang" if unfinished else "collective_mismatch",
        severity="warning" if unfinished else "critical",
        first_step=step,
        step=step,
        value=float(mismatch.sequence),
        threshold=0.0,
        rank=mismatch.ranks[0] if len(mismatch.ranks) == 1 else None,
        name=next((place for rank, place in mismatch.where.items() if rank in mismatch.ranks and place), "")
        or next((place for place in mismatch.where.values() if place), ""),
        evidence=details(mismatch),
    )
