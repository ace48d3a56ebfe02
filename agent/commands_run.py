"""``torchvitals run [--name NAME] [--dir DIR] [--quiet] COMMAND...``."""

import argparse
from pathlib import Path

from torchvitals.agent.errors import CommandError
from torchvitals.agent.launch import clean_name, launch
from torchvitals.signals.spool import default_directory


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="", help="a name for people; by default the script's")
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    parser.add_argument("--quiet", action="store_true", help="say nothing about the recording")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="the command, as you would type it")


def execute(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise CommandError("run what? Give a command, for example: torchvitals run python train.py")
    name = clean_name(args.name) if args.name else ""
    return launch(command, directory=args.dir or default_directory(), name=name, quiet=args.quiet)
