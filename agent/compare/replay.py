"""A run and its replay: the recorded command is run once more, with every step digested."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torchvitals.agent.compare.recorded import Recorded, load
from torchvitals.agent.errors import CommandError
from torchvitals.agent.launch import clean_name, launch
from torchvitals.signals.reader import list_runs

EXACT = {"TORCHVITALS_EXACT": "1"}


def replay(path: Path, directory: Path) -> Path:
    """Run the command of the run in ``path`` again and return the directory of the new run.

    The command does all that it did before, so it overwrites what it writes. It starts in the same working
    directory with today's environment; what it prints goes to stderr, since stdout is the comparison's.

    Raises:
        CommandError: the run was not started by ``torchvitals run``, its folder is gone, or it trains no more.

    """
    run = load(path)
    command = [str(word) for word in run.launcher.get("command", [])]
    if not command:
        raise CommandError(
            f"{run.run} was not started by torchvitals run, so its command is not known; record it again "
            "(torchvitals run COMMAND) and give both runs: torchvitals compare RUN_A RUN_B"
        )
    known = {listing.run for listing in list_runs(directory)}
    name = clean_name(f"{run.name}-replay")
    with _where(run), _printing_to_stderr():
        code = launch(command, directory=directory.absolute(), name=name, quiet=True, asked=EXACT)
    made = [listing for listing in list_runs(directory) if listing.run not in known and listing.name == name]
    if not made:
        raise CommandError(f"{' '.join(command)} left no run this time (exit code {code}); try it yourself first")
    return made[-1].path


@contextmanager
def _where(run: Recorded) -> Iterator[None]:
    folder, here = Path(str(run.launcher.get("cwd") or ".")), Path.cwd()
    if not folder.is_dir():
        raise CommandError(f"{run.run} was started in {folder}, which is gone; run it again from where it is now")
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(here)


@contextmanager
def _printing_to_stderr() -> Iterator[None]:
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
