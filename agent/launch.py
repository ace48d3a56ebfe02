"""``torchvitals run COMMAND...``: start the user's command so that every Python child that trains is watched.

Nothing of the command is changed but its environment. Signals reach it, its exit code is ours, and what the
children cannot tell themselves (that they were killed, and by what) is written down here, under rank -1.
"""

import importlib.util
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from torchvitals.agent.errors import CommandError
from torchvitals.agent.false_alarms import VARIABLE
from torchvitals.agent.oom import OomKills
from torchvitals.agent.watchman import Watchman
from torchvitals.signals.reader import RunReader, SpoolError
from torchvitals.signals.records import LAUNCHER_RANK, Event, Hello
from torchvitals.signals.spool import SpoolWriter

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""What shells answer, so that scripts around a command keep working."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OF_INTEREST = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONPATH", "PYTORCH_CUDA_ALLOC_CONF", "NCCL_DEBUG", VARIABLE,
)  # fmt: skip
DUMPS = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")
"""Where torch writes dumps of its flight recorder when somebody says so: a path to which it adds the rank."""


def launch(
    command: Sequence[str],
    *,
    directory: Path,
    name: str = "",
    run: str = "",
    quiet: bool = False,
    asked: Mapping[str, str] | None = None,
) -> int:
    """Run ``command`` and return its exit code, 128 + n when signal n ended it.

    ``run`` is the id of a run that other hosts take part in; by default a new one. ``asked`` is what the hooks are
    asked for beside recording, as environment variables.

    Raises:
        CommandError: the command cannot be started (status 127 or 126, as a shell answers).

    """
    name = name or name_of(command)
    run = run or run_id(name)
    say = _say if not quiet else _say_nothing
    hello = Hello(
        run=run,
        name=name,
        rank=LAUNCHER_RANK,
        host=socket.gethostname(),
        role="launcher",
        world_size=0,
        python=sys.version.split()[0],
        command=" ".join(command),
    )
    spool = SpoolWriter(directory, hello)
    given = {**os.environ, **(asked or {})}
    kills = OomKills()
    process = _start(command, environment(given, run, name, directory, quiet=quiet))
    watched = spool.write(Event(time.time(), -1, "command", _details(command, given)))
    if not watched:
        say(f"not recording, the job runs all the same; {directory}: {spool.failure}; choose another with --dir")
    watchman = Watchman(directory / run, spool.write)
    if watched:
        watchman.start()
    code = _wait(process, watchman.asked)
    watchman.stop()
    ended = {
        "code": code,
        "signal": -code if code < 0 else None,
        "oom_kills": kills.since(),
        "stopped_by": next(iter(watchman.asked), None),
    }
    spool.write(Event(time.time(), -1, "command_exit", ended))
    spool.close()
    if watched:
        say(closing_line(directory, run, command))
    return 128 - code if code < 0 else code


def _details(command: Sequence[str], given: Mapping[str, str]) -> dict[str, Any]:
    return {
        "command": list(command),
        "cwd": str(Path.cwd()),
        "flight_records": next((given[key] for key in DUMPS if key in given), None),
        "environment": {key: given[key] for key in OF_INTEREST if key in given},
    }


def run_id(name: str, clock: Callable[[], float] = time.time) -> str:
    """Sortable by start, readable, unique: ``20261123-153700-train-1f9c``."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(clock()))
    return f"{stamp}-{name}-{secrets.token_hex(2)}"


def name_of(command: Sequence[str]) -> str:
    """A name for people: the script's, else the module's, else the command's.

    >>> name_of(["torchrun", "--nproc-per-node", "2", "jobs/train.py", "--lr", "1"])
    'train'
    >>> name_of(["python", "-m", "demo.jobs.explosion"])
    'explosion'
    """
    script = next((word for word in command if word.endswith(".py")), None)
    if script is None and "-m" in command[:-1]:
        script = command[list(command).index("-m") + 1].rpartition(".")[2]
    return clean_name(Path(script or command[0]).stem)


def clean_name(name: str) -> str:
    """``name`` as it may stand in a directory name.

    >>> clean_name("my run/2")
    'my-run-2'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:60] or "run"


def environment(
    inherited: Mapping[str, str], run: str, name: str, directory: Path, *, quiet: bool = False
) -> dict[str, str]:
    """What the children get: who they are, and our ``sitecustomize`` ahead of their own."""
    path = [str(zero_code_directory()), *filter(None, [inherited.get("PYTHONPATH")])]
    added = {
        "TORCHVITALS_RUN": run,
        "TORCHVITALS_NAME": name,
        "TORCHVITALS_DIR": str(directory.absolute()),
        "PYTHONPATH": os.pathsep.join(path),
    }
    return {**inherited, **added, **({"TORCHVITALS_QUIET": "1"} if quiet else {})}


def zero_code_directory() -> Path:
    """Where the ``sitecustomize`` lies, found without importing the hooks: they would import torch.

    Raises:
        CommandError: the installation is broken.

    """
    spec = importlib.util.find_spec("torchvitals.hooks")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        directory = Path(place) / "zero_code"
        if (directory / "sitecustomize.py").is_file():
            return directory
    raise CommandError("this installation has no hooks/zero_code; install again with: pip install torchvitals")


def closing_line(directory: Path, run: str, command: Sequence[str]) -> str:
    """What to type next; or, when no process trained, what that means."""
    if trained(directory / run):
        return f"recorded as {run}; to see how it did: torchvitals diagnose {run}"
    options = {word for word in command if re.fullmatch(r"-[a-zA-Z]*[IES][a-zA-Z]*", word)}
    if options:
        why = f"python was started with {' '.join(sorted(options))}, which ignores PYTHONPATH; leave that out"
    else:
        why = "no Python process of it took an optimizer step or served a model; is torch used, in this environment?"
    return f"nothing was recorded: {why} (checks: torchvitals doctor)"


def trained(path: Path) -> bool:
    """Whether a process other than the launcher wrote into the run."""
    try:
        return any(not name.startswith(f"{LAUNCHER_RANK}.") for name in RunReader(path).processes)
    except SpoolError:
        return False


def _start(command: Sequence[str], environ: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    try:
        return subprocess.Popen(command, env=environ)  # noqa: S603 (running the user's command is the task)
    except FileNotFoundError:
        raise CommandError(
            f"command not found: {command[0]}; give it as you would type it, for example: "
            "torchvitals run python train.py",
            NOT_FOUND,
        ) from None
    except OSError as error:
        raise CommandError(
            f"cannot start {command[0]}: {error.strerror}; a script needs its interpreter: "
            f"torchvitals run python {command[0]}",
            NOT_EXECUTABLE,
        ) from None


def _wait(process: "subprocess.Popen[bytes]", asked: list[int]) -> int:
    """Wait for the command, handing on the signals that were meant for it, and return its code.

    The signals by which somebody asks it to end are noted in ``asked``.
    """

    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        if number in STOPPING:
            asked.append(int(number))
        # A key press (Ctrl-C) reaches the whole foreground group by itself; twice would kill what wants to end well.
        if not (number == signal.SIGINT and _has_terminal()):
            process.send_signal(number)

    before: dict[int, Any] = {number: signal.signal(number, forward) for number in FORWARDED}
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code


def _has_terminal() -> bool:
    """Whether we are in the foreground of a terminal."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # no stdin, closed, or replaced by a test
        return False


def _say(text: str) -> None:
    sys.stderr.write(f"torchvitals: {text}\n")


def _say_nothing(text: str) -> None:
    del text
