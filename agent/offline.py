"""Diagnose a run from its files alone: no agent, no store, nothing but the spool."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from torchvitals.agent.dump_evidence import add_finding, take_dumps
from torchvitals.agent.engine import Engine, NotChecked, Process
from torchvitals.agent.incident import Incident
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.run_state import RunState, merged
from torchvitals.detectors.allowance import Allowance
from torchvitals.signals.reader import ProcessReader, RunReader, SpoolError
from torchvitals.signals.records import LAUNCHER_RANK, Event, Hello


class Report(msgspec.Struct, kw_only=True):
    """Everything that is known of a run: what ``diagnose`` prints in one form or another."""

    run: str
    name: str
    state: str
    """``running``, ``finished``, ``failed`` or ``killed``."""
    ending: str
    """How the run ended, in words, as far as anybody wrote it down."""
    role: str
    host: str
    command: str
    started: float
    ranks: int
    steps: int
    requests: int = 0
    """Recorded beside or after a training; those of a service are its steps."""
    checked: list[str]
    not_checked: list[NotChecked]
    incidents: list[Incident]
    engine: Engine
    """For plots: the history behind the incidents."""


def diagnose_directory(
    path: Path,
    liveness: Liveness | None = None,
    *,
    allowance: Allowance | None = None,
    insist: bool = False,
    flight_records: Path | None = None,
    also: Sequence[Path] = (),
) -> Report:
    """Read a run from its beginning to its end and say what was wrong with it.

    A process that neither said goodbye nor lives any more was killed; one that lives is still at work, and
    its run is judged as far as it has come. ``allowance`` is for a run that was started without a number of false
    alarms of its own, or with ``insist`` for any. ``flight_records`` is a folder with dumps of torch's flight recorder;
    those that torch wrote where the run told it to are found without. ``also`` are directories in which other hosts
    recorded the same run; their clocks may differ.

    Raises:
        SpoolError: the directory holds no run, or one of another schema version.

    """
    readers = [reader for each in (path, *also) for reader in RunReader(each).processes.values()]
    state = RunState(path.resolve().name, allowance=allowance, insist=insist)
    state.feed(merged(process.read() for process in readers))
    if not state.engine.processes:
        raise SpoolError(f"{path} holds no readable record of a run; list the runs there are with: torchvitals runs")
    liveness = liveness or Liveness()
    gone = [process.hello for process in silent(state.engine) if liveness.is_gone(process.hello, process.last_seen)]
    alive = [process for process in silent(state.engine) if process.hello not in gone]
    mismatch = take_dumps(state, path, flight_records)
    state.finish(gone)
    if mismatch is not None:
        add_finding(state, mismatch)
    return _report(state, readers, gone, alive)


def silent(engine: Engine) -> list[Process]:
    """The processes that did not say that they ended; once the launcher saw the end, all that still seem to live."""
    return [process for process in engine.processes.values() if process.exit_code is None]


def _report(state: RunState, readers: list[ProcessReader], gone: list[Hello], alive: list[Process]) -> Report:
    engine = state.engine
    speaker = min((process.hello for process in engine.processes.values()), key=lambda hello: hello.rank)
    workers = [process for process in engine.processes.values() if process.hello.rank != LAUNCHER_RANK]
    condition, ending = describe_end(engine, gone, alive)
    return Report(
        run=engine.run_id,
        name=speaker.name or engine.run_id,
        state=condition,
        ending=ending,
        role=workers[-1].hello.role if workers else "launcher",
        host=speaker.host,
        command=speaker.command,
        started=min(process.hello.started for process in engine.processes.values()),
        ranks=len({process.hello.rank for process in workers}),
        steps=max((process.last_step for process in workers), default=-1) + 1,
        requests=sum(process.requests for process in workers),
        checked=state.checked(),
        not_checked=[*state.not_checked(), *unread(readers)],
        incidents=state.incidents,
        engine=engine,
    )


def describe_end(engine: Engine, gone: list[Hello], alive: list[Process]) -> tuple[str, str]:
    """State and a sentence: what the launcher saw, else what the processes said, never more than that."""
    last = max((process.last_step for process in engine.processes.values()), default=-1)
    progress = f"last completed step {last}" if last >= 0 else "no step was completed"
    ends = [event for event in engine.launcher_events if event.kind == "command_exit"]
    if ends and not any(process.hello.rank == LAUNCHER_RANK for process in alive):  # on no host
        return _command_end(next(filter(_is_bad, ends), ends[0]), progress)
    if alive:
        return "running", f"still running, {progress}"
    if gone:
        ranks = sorted({hello.rank for hello in gone if hello.rank != LAUNCHER_RANK})
        whose = f" of rank {', '.join(map(str, ranks))}" if len(ranks) > 1 else ""
        return "killed", f"no exit{whose} was recorded; {progress}"
    codes = [process.exit_code for process in engine.processes.values() if process.exit_code]
    if codes:
        return "failed", f"exit code {codes[0]}, {progress}"
    return "finished", f"exit code 0, {progress}"


def _is_bad(end: Event) -> bool:
    return bool(end.details.get("signal") or end.details.get("code"))


def _command_end(event: Event, progress: str) -> tuple[str, str]:
    number, code = event.details.get("signal"), event.details.get("code")
    if number:
        kills = event.details.get("oom_kills")
        memory = f"; the kernel killed {kills} for memory meanwhile" if kills else ""
        return "killed", f"killed by signal {number}{memory}; {progress}"
    if code:
        return "failed", f"the command's exit code was {code}; {progress}"
    return "finished", f"the command's exit code was 0; {progress}"


def unread(readers: list[ProcessReader]) -> list[NotChecked]:
    """What the files held and nobody could read."""
    found = []
    for reader in readers:
        losses = {
            "corrupt frames": reader.corrupt,
            "records of a newer kind": reader.unknown,
            "missing segments": reader.missing_segments,
            "records dropped by the job": reader.hello.dropped if reader.hello else 0,
        }
        if any(losses.values()):
            what = ", ".join(f"{count} {name}" for name, count in losses.items() if count)
            found.append(NotChecked(f"part of process {reader.path.name}", what))
    return found
