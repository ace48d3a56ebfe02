"""``torchvitals diagnose [RUN|DIR|latest]``: from the files alone, whether an agent runs or not."""

import argparse
from pathlib import Path

from torchvitals.agent import false_alarms
from torchvitals.agent.config import ConfigError, usual_false_alarms
from torchvitals.agent.dump_diagnosis import diagnose_dumps
from torchvitals.agent.dump_evidence import files_in
from torchvitals.agent.errors import CommandError
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.agent.report import as_json, as_markdown, reaches
from torchvitals.agent.run_lookup import LATEST, find_run
from torchvitals.detectors.allowance import Allowance
from torchvitals.signals.reader import NotARunError
from torchvitals.signals.spool import default_directory

FAILED_ON = 1
"""Exit code when an incident is as bad as ``--fail-on``; errors of the command itself are 2."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default=LATEST, help="a run, its name, a directory, or: latest")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help="for an issue or a chat")
    form.add_argument("--html", type=Path, metavar="FILE", help="one file with plots that opens offline")
    parser.add_argument(
        "--also",
        type=Path,
        metavar="DIR",
        action="append",
        default=[],
        help="the same run, as another host recorded it",
    )
    false_alarms.add_argument(parser)
    parser.add_argument(
        "--flight-records", type=Path, metavar="DIR", help="dumps of torch's flight recorder, one per rank, to read too"
    )
    parser.add_argument(
        "--fail-on",
        choices=("info", "warning", "error", "critical"),
        help=f"exit with {FAILED_ON} when an incident is at least so severe",
    )


def execute(args: argparse.Namespace) -> int:
    asked = args.false_alarms_per_month
    path = find_run(args.run, args.dir or default_directory())
    try:
        report = diagnose_directory(
            path,
            allowance=Allowance(asked or _usual_false_alarms()),
            insist=asked is not None,
            flight_records=args.flight_records,
            also=args.also,
        )
    except NotARunError:
        if not files_in(path):
            raise
        report = diagnose_dumps(path)
    if not report.ranks and not report.incidents:
        raise CommandError(_nothing(report))
    if args.json:
        print(as_json(report))
    elif args.markdown:
        print(as_markdown(report), end="")
    elif args.html:
        from torchvitals.agent.report_html import as_html

        write_page(args.html, as_html(report))
    else:
        from torchvitals.agent.report_terminal import print_report

        print_report(report)
    return FAILED_ON if args.fail_on and reaches(report, args.fail_on) else 0


def _usual_false_alarms() -> float:
    """What the agent would be content with."""
    try:
        return usual_false_alarms()
    except ConfigError as error:
        raise CommandError(str(error)) from error


def _nothing(report: Report) -> str:
    """Why there is nothing to diagnose: the launcher was here, and no process of it trained."""
    if report.state == "running":
        return f"{report.run} has taken no step yet; look again later, or follow it with: torchvitals tail {report.run}"
    return (
        f"in {report.run} no process took an optimizer step or served a model ({report.ending}); "
        "see whether its Python has torch and torchvitals with: torchvitals doctor"
    )


def write_page(path: Path, text: str) -> None:
    """Write an HTML page and say where it is."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}; give another file after --html") from error
    print(f"written: {path}")
