"""``torchvitals tail RUN``: the steps and events of a run as they are written."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from torchvitals.agent.engine import Process
from torchvitals.agent.liveness import Liveness
from torchvitals.agent.run_lookup import LATEST, find_run
from torchvitals.agent.run_state import merged
from torchvitals.signals.reader import Entry, RunReader
from torchvitals.signals.records import Event, Step
from torchvitals.signals.spool import default_directory

POLL_SECONDS = 0.3
SHOWN = ("loss", "learning_rate", "gradient_norm", "step_seconds", "rss_bytes")
QUIET_EVENTS = ("facts", "not_checked")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=LATEST, help="a run, its name, a directory, or: latest")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    parser.add_argument("--signals", default=",".join(SHOWN), help="comma-separated names")
    parser.add_argument("--no-follow", action="store_true", help="print what is there and end")


def execute(args: argparse.Namespace) -> int:
    reader = RunReader(find_run(args.run, args.dir or default_directory()))
    signals = args.signals.split(",")
    for entry in follow(reader, wait=not args.no_follow):
        if text := describe(entry, signals):
            print(text, flush=True)
    return 0


def follow(reader: RunReader, *, wait: bool) -> Iterator[Entry]:
    """The entries of a run, oldest first; with ``wait`` until its last process has gone."""
    processes: dict[tuple[int, int], Process] = {}
    liveness = Liveness()
    while True:
        reader.look()
        for entry in merged(process.read() for process in reader.processes.values()):
            process = processes.setdefault((entry.hello.rank, entry.hello.pid), Process(entry.hello))
            process.note(entry.record)
            yield entry
        at_work = [p for p in processes.values() if p.exit_code is None and not liveness.is_gone(p.hello, p.last_seen)]
        if not wait or not at_work:
            return
        time.sleep(POLL_SECONDS)


def describe(entry: Entry, signals: list[str]) -> str:
    """One line, or nothing for records that are not for reading."""
    record, rank = entry.record, entry.hello.rank
    if isinstance(record, Step):
        values = [f"{name}={record.values[name]:.5g}" for name in signals if name in record.values]
        return f"rank {rank} step {record.step}  {'  '.join(values)}"
    if isinstance(record, Event) and record.kind not in QUIET_EVENTS:
        details = ", ".join(f"{key}={value}" for key, value in record.details.items() if value not in (None, "", {}))
        return f"rank {rank} step {record.step}  {record.kind}: {details[:200]}"
    return ""
