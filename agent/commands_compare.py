"""``torchvitals compare RUN_A RUN_B | RUN --replay``: the first bit in which runs differ, why, and what they cost."""

import argparse
from pathlib import Path

from torchvitals.agent.compare.comparison import compare_runs
from torchvitals.agent.errors import CommandError
from torchvitals.agent.run_lookup import find_run
from torchvitals.signals.spool import default_directory

DIFFERENT = 1
"""Exit code with ``--fail-on-divergence`` unless the runs are equal; errors of the command itself are 2."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="RUN_A", help="a run, its name, or a directory")
    parser.add_argument("b", metavar="RUN_B", nargs="?", help="another one")
    parser.add_argument(
        "--replay", action="store_true", help="instead of RUN_B: run RUN_A's command again, with all that it writes"
    )
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object")
    form.add_argument("--markdown", action="store_true", help="for an issue or a chat")
    form.add_argument("--html", type=Path, metavar="FILE", help="one file with plots that opens offline")
    parser.add_argument(
        "--fail-on-divergence", action="store_true", help=f"exit with {DIFFERENT} unless the runs are bitwise equal"
    )


def execute(args: argparse.Namespace) -> int:
    directory = args.dir or default_directory()
    path_a = find_run(args.a, directory)
    path_b = _other(args, path_a, directory)
    if path_a.resolve() == path_b.resolve():
        raise CommandError(
            f"{args.a} and {args.b} are the same run, {path_a.name}; list the runs with: torchvitals runs"
        )
    comparison = compare_runs(path_a, path_b)
    if args.json:
        from torchvitals.agent.compare.report import as_json

        print(as_json(comparison))
    elif args.markdown:
        from torchvitals.agent.compare.report import as_markdown

        print(as_markdown(comparison), end="")
    elif args.html:
        from torchvitals.agent.commands_diagnose import write_page
        from torchvitals.agent.compare.page import as_html

        write_page(args.html, as_html(comparison))
    else:
        from torchvitals.agent.compare.report import print_comparison

        print_comparison(comparison)
    return DIFFERENT if args.fail_on_divergence and comparison.verdict != "equal" else 0


def _other(args: argparse.Namespace, path_a: Path, directory: Path) -> Path:
    """The run to compare with: the one that was named, or a new one."""
    if args.replay == bool(args.b):
        raise CommandError(
            "compare with what? Give two runs (torchvitals compare RUN_A RUN_B), or one and --replay, which runs its "
            "command again"
        )
    if not args.replay:
        return find_run(args.b, directory)
    from torchvitals.agent.compare.replay import replay

    return replay(path_a, directory)
