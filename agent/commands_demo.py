"""``torchvitals demo [NAME|all] [--more] [--list]``: real jobs that fail in one way each, run, diagnosed and judged."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import msgspec
from torchvitals.agent.demo_judgement import Job, Outcome, disagreement, misjudged, told
from torchvitals.agent.demo_stage import Stage
from torchvitals.agent.demo_table import as_json, print_table
from torchvitals.agent.demo_troupe import Ended, Troupe, log_of
from torchvitals.agent.errors import CommandError
from torchvitals.agent.offline import diagnose_directory
from torchvitals.agent.report import incident_object
from torchvitals.agent.run_lookup import find_run
from torchvitals.signals.spool import default_directory

ALL = "all"
MEANT_FOR = 2
"""The fewest ranks that one of the jobs of several ranks is meant for."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("job", nargs="?", default=ALL, help="one of the jobs, or: all")
    parser.add_argument("--more", action="store_true", help="with all: the jobs of several ranks and endings as well")
    parser.add_argument("--ranks", type=int, help="only the jobs of several ranks, each played by so many")
    parser.add_argument("--list", action="store_true", help="list the jobs")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")
    parser.add_argument("--stay", action="store_true", help="leave agent and dashboard up until Ctrl-C")
    parser.add_argument(
        "--dir", type=Path, default=None, help="where these runs are recorded (default: a directory of their own)"
    )


def execute(args: argparse.Namespace) -> int:
    jobs = known_jobs(args.ranks)
    more = args.more or args.ranks is not None
    if args.list:
        for job in jobs:
            print(f"{job.name:22} {job.kind or '(silent)':20} {job.tells}{' (with --more)' if job.more else ''}")
        return 0
    chosen = [job for job in jobs if job.name == args.job or (args.job == ALL and (more or not job.more))]
    if not chosen:
        names = ", ".join(job.name for job in jobs)
        raise CommandError(f"no demo job {args.job}; there are: {names}; or type: torchvitals demo all")
    directory = _make_directory(args.dir or default_directory().with_name("torchvitals-demo"))
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Stage(directory, _say) as stage:
            return play(chosen, stage, directory, args)
    finally:
        signal.signal(signal.SIGTERM, previous)


def play(jobs: Sequence[Job], stage: Stage, directory: Path, args: argparse.Namespace) -> int:
    """Run and judge ``jobs``; return 1 when one was misjudged."""
    stage.wait_until_ready()
    _say(f"dashboard: {stage.dashboard_url}  agent: {stage.url}  runs: {directory}")
    troupe = Troupe(directory, len(os.sched_getaffinity(0)), _say)
    outcomes = sorted(
        (judge(ended, stage, directory) for ended in troupe.perform(jobs)),
        key=lambda outcome: jobs.index(outcome.job),
    )
    if args.json:
        print(as_json(outcomes), flush=True)
    else:
        print_table(outcomes)
    if args.stay:
        _say(f"the dashboard stays up at {stage.dashboard_url} until you type Ctrl-C")
        _until_interrupted(stage.wait_for_the_end)
    return int(any(outcome.wrong for outcome in outcomes))


def known_jobs(ranks: int | None = None) -> list[Job]:
    """The table, asked of the demo room in a process of its own; with ``ranks`` its jobs of several, on so many."""
    if ranks is not None and ranks < MEANT_FOR:
        raise CommandError(f"--ranks {ranks}: ranks are compared with each other; type --ranks {MEANT_FOR}, or more")
    command = [sys.executable, "-m", "torchvitals.demo_jobs.jobs", "--json"]
    command += ["--ranks", str(ranks)] if ranks else []
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 (our own module)
    if done.returncode:
        raise CommandError("the demo jobs are not installed; type: pip install torchvitals")
    return msgspec.json.decode(done.stdout, type=list[Job])


def judge(ended: Ended, stage: Stage, directory: Path) -> Outcome:
    """Compare what the agent has stored of a job with what it must bring, and with the diagnosis of its files."""
    job, failure, seconds = ended
    if failure:
        return Outcome(job, [], f"{failure}; see {log_of(job, directory)}", seconds)
    try:
        path = find_run(job.name, directory)
        report = diagnose_directory(path)
        live = [told(incident) for incident in stage.incidents(path.name)]
    except CommandError as error:
        return Outcome(job, [], str(error), seconds)
    offline = [told(incident_object(incident)) for incident in report.incidents]
    wrong = misjudged(job, live) or disagreement(live, offline) if report.steps else "it recorded no step"
    _say(f"{job.name} took {seconds:.0f} s and was judged {f'WRONG: {wrong}' if wrong else 'right'}")
    return Outcome(job, live, wrong, seconds)


def _make_directory(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot record in {directory}: {error.strerror}; choose another with --dir") from error
    return directory.absolute()


def _until_interrupted(wait: Callable[[], None]) -> None:
    try:
        wait()
    except KeyboardInterrupt:
        _say("ended")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends as Ctrl-C does: jobs, agent and dashboard with it."""
    raise KeyboardInterrupt


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
