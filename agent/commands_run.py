"""``torchvitals run [OPTIONS] COMMAND...``: ``--name``, ``--dir``, ``--run``, ``--quiet``, ``--guard``, ``--exact``,
``--false-alarms-per-month``.
"""

import argparse
from pathlib import Path

from torchvitals.agent import false_alarms
from torchvitals.agent.errors import CommandError
from torchvitals.agent.launch import clean_name, launch
from torchvitals.signals.spool import default_directory

GUARDS = ("skip", "stop", "rollback")
"""As in hooks/guard.py, which this room may not import; a test compares the two."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="", help="a name for people; by default the script's")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    parser.add_argument("--run", default="", metavar="ID", help="one id for a job that is started on several hosts")
    parser.add_argument("--quiet", action="store_true", help="say nothing about the recording")
    parser.add_argument(
        "--guard", choices=GUARDS, help="what to do with a step whose gradients are not finite; by default nothing"
    )
    parser.add_argument(
        "--exact", action="store_true", help="digest every step, for torchvitals compare; slower by far more than 1 %%"
    )
    false_alarms.add_argument(parser)
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command, as you would type it")


def execute(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise CommandError("run what? Give a command, for example: torchvitals run python train.py")
    name = clean_name(args.name) if args.name else ""
    asked = {
        **({"TORCHVITALS_GUARD": args.guard} if args.guard else {}),
        **({"TORCHVITALS_EXACT": "1"} if args.exact else {}),
        **({false_alarms.VARIABLE: f"{args.false_alarms_per_month:g}"} if args.false_alarms_per_month else {}),
    }
    directory, run = args.dir or default_directory(), clean_name(args.run) if args.run else ""
    return launch(command, directory=directory, name=name, run=run, quiet=args.quiet, asked=asked)
