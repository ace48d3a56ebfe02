"""``torchvitals incidents``: one line per incident of the latest runs, read from their files."""

import argparse
import json
from pathlib import Path

from torchvitals.agent.errors import CommandError
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.agent.report import incident_object, place
from torchvitals.signals.reader import SpoolError, list_runs
from torchvitals.signals.spool import default_directory

LATEST_RUNS = 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    parser.add_argument("--last", type=int, default=LATEST_RUNS, metavar="N", help="how many runs to look at")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def execute(args: argparse.Namespace) -> int:
    directory = args.dir or default_directory()
    runs = list_runs(directory)
    if not runs:
        raise CommandError(f"no runs yet in {directory}; record one with: torchvitals run python train.py")
    found = 0
    for run in runs[: -args.last - 1 : -1] if args.last > 0 else []:
        try:
            report = diagnose_directory(run.path)
        except SpoolError as error:
            print(f"{run.run}  not readable: {error}")
            continue
        found += len(report.incidents)
        _print(report, as_json=args.json)
    if not found and not args.json:
        print(f"no incidents in the latest {min(args.last, len(runs))} runs; details: torchvitals diagnose RUN")
    return 0


def _print(report: Report, *, as_json: bool) -> None:
    for incident in report.incidents:
        if as_json:
            print(json.dumps({"run": report.run, **incident_object(incident)}))
        else:
            cause = f"{incident.cause} ({incident.confidence:.0%})"
            print(f"{report.run}  {incident.severity:8}  {incident.kind}: {cause}, {place(incident)}")
