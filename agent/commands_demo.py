"""``torchvitals demo [NAME|all] [--list]``: real jobs that fail in one way each, run, diagnosed and judged."""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from torchvitals.agent.errors import CommandError
from torchvitals.agent.incident import Incident
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.agent.report import place
from torchvitals.agent.run_lookup import find_run
from torchvitals.signals.spool import default_directory

ALL = "all"
JOB_SECONDS = 240.0
"""A demo takes seconds; a machine without a free core takes minutes."""
HEADINGS = ("job", "incident", "severity", "where", "cause", "steps until flagged", "seconds", "judged")


class Job(msgspec.Struct):
    """What the table of demo jobs says of one; see demo_jobs/jobs.py, which is read as JSON."""

    name: str
    tells: str
    command: list[str]
    kind: str | None = None
    causes: list[str] = []
    where: str = ""


class Outcome(NamedTuple):
    """What became of one job; ``wrong`` is empty when it was judged right."""

    job: Job
    incidents: Sequence[Incident]
    wrong: str
    seconds: float


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", default=ALL, help="one of the jobs, or: all")
    parser.add_argument("--list", action="store_true", help="list the jobs")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")


def execute(args: argparse.Namespace) -> int:
    jobs = known_jobs()
    if args.list:
        for job in jobs:
            print(f"{job.name:14} {job.kind or '(silent)':20} {job.tells}")
        return 0
    chosen = [job for job in jobs if args.job in (ALL, job.name)]
    if not chosen:
        names = ", ".join(job.name for job in jobs)
        raise CommandError(f"no demo job {args.job}; there are: {names}; or type: torchvitals demo all")
    directory = args.dir or default_directory()
    outcomes = []
    for job in chosen:
        print(f"running {job.name}: {job.tells}", file=sys.stderr, flush=True)
        outcomes.append(perform(job, directory))
    print(as_json(outcomes) if args.json else table(outcomes))
    return int(any(outcome.wrong for outcome in outcomes))


def known_jobs() -> list[Job]:
    """The table, asked of the demo room in a process of its own."""
    command = [sys.executable, "-m", "torchvitals.demo_jobs.jobs", "--json"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 (our own module)
    if done.returncode:
        raise CommandError("the demo jobs are not installed; type: pip install torchvitals")
    return msgspec.json.decode(done.stdout, type=list[Job])


def perform(job: Job, directory: Path) -> Outcome:
    """Run one job as anybody would, diagnose what it recorded, and compare with what it must bring."""
    start = time.monotonic()
    run = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--dir", str(directory), "--name", job.name]
    try:
        done = subprocess.run(  # noqa: S603 (a demo job of ours)
            [*run, *job.command], capture_output=True, text=True, timeout=JOB_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Outcome(job, [], f"took more than {JOB_SECONDS:.0f} s", JOB_SECONDS)
    seconds = time.monotonic() - start
    try:
        report = diagnose_directory(find_run(job.name, directory))
    except CommandError:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return Outcome(job, [], f"recorded nothing: {last}", seconds)
    return Outcome(job, report.incidents, misjudged(job, report), seconds)


def misjudged(job: Job, report: Report) -> str:
    """What is wrong with the diagnosis of ``job``; empty when it is as it must be."""
    if not report.steps:
        return "it recorded no step"
    if len(report.incidents) != int(job.kind is not None):
        return f"{len(report.incidents)} incidents instead of {int(job.kind is not None)}"
    for incident in report.incidents:
        if incident.kind != job.kind:
            return f"{incident.kind} instead of {job.kind}"
        if job.causes and incident.cause not in job.causes:
            return f"{incident.cause} instead of {' or '.join(job.causes)}"
        if job.where not in incident.where:
            return f"at {incident.where or 'no place'} instead of {job.where}"
    return ""


def table(outcomes: Iterable[Outcome]) -> str:
    """One line per job, columns aligned."""
    lines = [HEADINGS, *(line for outcome in outcomes for line in _lines(outcome))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _lines(outcome: Outcome) -> list[tuple[str, ...]]:
    judged = f"WRONG: {outcome.wrong}" if outcome.wrong else "right"
    seconds = f"{outcome.seconds:.0f}"
    if not outcome.incidents:
        return [(outcome.job.name, "none", "", "", "", "", seconds, judged)]
    return [
        (
            outcome.job.name,
            incident.kind,
            incident.severity,
            place(incident),
            f"{incident.cause} ({incident.confidence:.0%})",
            str(incident.detected_step - incident.first_step),
            seconds,
            judged,
        )
        for incident in outcome.incidents
    ]


def as_json(outcomes: Iterable[Outcome]) -> str:
    """For programs: a list of objects."""
    return json.dumps(
        [
            {
                "job": outcome.job.name,
                "expected": outcome.job.kind,
                "wrong": outcome.wrong,
                "seconds": round(outcome.seconds, 1),
                "incidents": [
                    {
                        "kind": incident.kind,
                        "severity": incident.severity,
                        "where": incident.where,
                        "rank": incident.rank,
                        "cause": incident.cause,
                        "first_step": incident.first_step,
                        "detected_step": incident.detected_step,
                    }
                    for incident in outcome.incidents
                ],
            }
            for outcome in outcomes
        ],
        indent=2,
    )
