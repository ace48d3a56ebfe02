"""``diagnose`` for a folder in which dumps of torch's flight recorder are all there is."""

from pathlib import Path

from torchvitals.agent.dump_evidence import files_in, finding_of, take
from torchvitals.agent.engine import NotChecked
from torchvitals.agent.flight_records import FlightRecord, Unread, read_folder
from torchvitals.agent.offline import Report
from torchvitals.agent.run_state import RunState
from torchvitals.signals.reader import Entry, SpoolError
from torchvitals.signals.records import Hello


def diagnose_dumps(folder: Path) -> Report:
    """A report on dumps alone.

    Raises:
        SpoolError: there is no dump in the folder.

    """
    records, unread = read_folder(files_in(folder))
    if not records:
        raise SpoolError(
            f"{folder} holds neither a run nor dumps of a flight recorder, so there is nothing to diagnose; record "
            f"a job with: torchvitals run COMMAND{_why(unread)}"
        )
    state = RunState(folder.resolve().name)
    for hello in _hellos(state.engine.run_id, records):
        state.feed([Entry(hello, hello)])
    mismatch = take(state, files_in(folder))
    if mismatch is not None:
        state.engine.add(finding_of(mismatch, 0))
        state.diagnosis.update()
    missing = sorted(set(range(max(records) + 1)) - set(records))
    absent = [NotChecked(f"rank {rank}", "no dump of it is there") for rank in missing[:64]]
    return Report(
        run=state.engine.run_id,
        name=state.engine.run_id,
        state="dumped",
        ending=f"flight records of {len(records)} ranks and nothing else",
        role="train",
        host="",
        command="",
        started=0.0,
        ranks=len(records),
        steps=0,
        checked=["collective_mismatch"],
        not_checked=[*absent, *state.diagnosis.problems, NotChecked("all else", "these are dumps, not a run's record")],
        incidents=state.incidents,
        engine=state.engine,
    )


def _hellos(run: str, records: dict[int, FlightRecord]) -> list[Hello]:
    members = [rank for record in records.values() for ranks in record.members.values() for rank in ranks]
    world = max([*records, *members]) + 1
    return [Hello(run=run, name=run, rank=rank, world_size=world, pid=rank + 1) for rank in sorted(records)]


def _why(unread: list[Unread]) -> str:
    return "".join(f"; {each.path.name}: {each.why}" for each in unread[:3])
