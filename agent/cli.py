"""The command line: one table of commands, each a module that is loaded only when it is meant."""

import argparse
import difflib
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType
from typing import NoReturn

from torchvitals.agent.errors import CommandError
from torchvitals.signals.reader import SpoolError

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("commands_run", "run a command with all its Python processes watched; exit code is the command's"),
    "diagnose": ("commands_diagnose", "say what was wrong with a run, why, where, and what to do"),
    "compare": ("commands_compare", "say where two runs first differ, bit by bit, and why; figures side by side"),
    "demo": ("commands_demo", "run jobs that fail in one way each, and healthy ones, and judge them"),
    "runs": ("commands_runs", "list the recorded runs"),
    "incidents": ("commands_incidents", "list the incidents of the latest runs"),
    "tail": ("commands_tail", "follow the steps of a run"),
    "export": ("commands_export", "write the signals of a run as JSON lines, CSV or Parquet"),
    "doctor": ("commands_doctor", "check the installation, with a self-test"),
    "agent": ("commands_agent", "follow all runs: diagnose, store, serve, alert"),
    "dashboard": ("commands_dashboard", "show the runs in a browser"),
    "up": ("commands_up", "agent and dashboard together"),
}
"""Command → module in this folder and one line of help. The module has ``configure(parser)`` and ``execute(args)``."""
FORWARDED = ("agent", "dashboard")
"""Commands whose module parses its own arguments: it has ``main(arguments)`` instead."""

EXTRAS: dict[str, str] = {"streamlit": "dashboard", "altair": "dashboard", "pandas": "dashboard", "apprise": "alerts"}
"""Library → extra that brings it; all others come with ``agent``."""
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; an error is one line on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # A retired detector is said in the report; its traceback is for whoever asks for logs, as the agent does.
    logging.getLogger("torchvitals").addHandler(logging.NullHandler())
    try:
        return _dispatch(arguments)
    except CommandError as error:
        return _fail(str(error), error.status)
    except SpoolError as error:
        return _fail(str(error), 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("torchvitals"):
            raise
        return _fail(_missing(error.name or "a library"), 2)
    except BrokenPipeError:
        # The reader of a pipe (`| head`) has enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line instead of a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise CommandError(f"{message}; to see what there is, type: {self.prog} --help")


def _dispatch(arguments: list[str]) -> int:
    name = next((word for word in arguments if not word.startswith("-")), "")
    if arguments[:1] == [name] and name in FORWARDED:
        return int(_module(name).main(arguments[1:]))
    if name and name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        raise CommandError(f"no command {name}; type: torchvitals {near[0] if near else '--help'}")
    parser = _Parser(
        prog="torchvitals", description="The vital signs of PyTorch jobs: what is going wrong, why, and where."
    )
    parser.add_argument("--version", action="version", version=f"torchvitals {version('torchvitals')}")
    subparsers = parser.add_subparsers(dest="name", metavar="COMMAND", required=True)
    for command, (_, text) in COMMANDS.items():
        subparser = subparsers.add_parser(command, help=text, description=text)
        if command == name and name not in FORWARDED:
            implementation = _module(name)
            implementation.configure(subparser)
            subparser.set_defaults(execute=implementation.execute)
    args = parser.parse_args(arguments)
    return int(args.execute(args))


def _module(command: str) -> ModuleType:
    return importlib.import_module(f"torchvitals.agent.{COMMANDS[command][0]}")


def _missing(library: str) -> str:
    top = library.partition(".")[0]
    extra = EXTRAS.get(top, "agent")
    return f"this command needs {top}, which is not installed; type: pip install 'torchvitals[{extra}]'"


def _fail(message: str, status: int) -> int:
    print(f"torchvitals: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
