"""From what was typed (a run, a name, a directory, ``latest``) to a run's directory."""

import difflib
from pathlib import Path

from torchvitals.agent.errors import CommandError
from torchvitals.signals.reader import RunListing, list_runs

LATEST = "latest"


def find_run(text: str, directory: Path) -> Path:
    """The directory of the run meant by ``text``: ``latest``, an id, the beginning of one, a name, or a path.

    Of several runs of one name the latest is meant. A path may be a run, or a directory of runs.

    Raises:
        CommandError: there is no such run; the message names near ones.

    """
    runs = list_runs(directory)
    if text == LATEST:
        if not runs:
            raise CommandError(f"no runs yet in {directory}; record one with: torchvitals run python train.py")
        return runs[-1].path
    for matches in (
        [run for run in runs if run.run == text],
        [run for run in runs if run.name == text][-1:],
        [run for run in runs if run.run.startswith(text)],
    ):
        if len(matches) == 1:
            return matches[0].path
        if matches:
            raise CommandError(f"{text} may be any of {_some(matches)}; type more of it")
    path = Path(text).expanduser()
    if path.is_dir():
        inside = list_runs(path)
        return inside[-1].path if inside else path
    raise CommandError(_unknown(text, runs, directory))


def _unknown(text: str, runs: list[RunListing], directory: Path) -> str:
    if not runs:
        return f"no run {text}, and no other yet in {directory}; record one with: torchvitals run python train.py"
    words = [word for run in runs for word in (run.run, run.name)]
    near = difflib.get_close_matches(text, words, n=3)
    if near:
        return f"no run {text}; near it: {', '.join(dict.fromkeys(near))}; list all with: torchvitals runs"
    return f"no run {text} among the {len(runs)} in {directory}; list them with: torchvitals runs"


def _some(runs: list[RunListing]) -> str:
    names = [run.run for run in runs[-3:]]
    return ", ".join(names) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
