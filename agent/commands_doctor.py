"""``torchvitals doctor``: what is installed, where runs go, and whether the whole way works, by walking it."""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from torchvitals.agent.errors import CommandError
from torchvitals.agent.launch import zero_code_directory
from torchvitals.agent.oom import OomKills
from torchvitals.agent.run_lookup import LATEST, find_run
from torchvitals.signals.reader import SpoolError
from torchvitals.signals.spool import default_directory

LIBRARIES: dict[str, tuple[str, str]] = {
    "torch": ("", "the hooks watch nothing without it"),
    "scipy": ("agent", "detectors need it"),
    "rich": ("agent", "diagnose prints with it"),
    "duckdb": ("agent", "the agent stores with it"),
    "fastapi": ("agent", "the agent answers with it"),
    "prometheus-client": ("agent", "the agent's metrics need it"),
    "streamlit": ("dashboard", "the dashboard is made with it"),
    "nvidia-ml-py": ("gpu", "GPU health is read with it; not needed on a CPU"),
}
OPTIONAL = ("streamlit", "nvidia-ml-py")
SELF_TEST_STEPS = 3
SELF_TEST = f"""
import torch
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range({SELF_TEST_STEPS}):
    optimizer.zero_grad()
    model(torch.ones(2, 4)).pow(2).mean().backward()
    optimizer.step()
"""
SELF_TEST_SECONDS = 120.0
"""Importing torch from a cold network disk takes a minute."""


class Check(NamedTuple):
    """One thing that was looked at. ``ok`` is ``None`` where something optional is absent."""

    what: str
    ok: bool | None
    seen: str


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")


def execute(args: argparse.Namespace) -> int:
    worst = 0
    for check in checks(args.dir or default_directory()):
        mark = {True: "ok  ", False: "BAD ", None: "-   "}[check.ok]
        print(f"{mark} {check.what}: {check.seen}", flush=True)
        worst = max(worst, int(check.ok is False))
    return worst


def checks(directory: Path) -> Iterator[Check]:
    """Everything worth knowing when something does not work, the self-test last."""
    yield Check("python", sys.version_info >= (3, 11), f"{sys.version.split()[0]} at {sys.executable}")
    yield Check("torchvitals", True, version("torchvitals"))
    for library, (extra, why) in LIBRARIES.items():
        yield _library(library, extra, why)
    yield _hooks()
    yield _writable(directory)
    kills = OomKills().since()
    seen = "the control group does not tell" if kills is None else "counted by the control group"
    yield Check("out-of-memory kills", True if kills is not None else None, seen)
    if "TORCHVITALS_RUN" in os.environ:
        yield Check("this process", None, f"is itself inside the run {os.environ['TORCHVITALS_RUN']}")
    yield self_test()


def _library(library: str, extra: str, why: str) -> Check:
    try:
        return Check(library, True, version(library))
    except PackageNotFoundError:
        install = f"torchvitals[{extra}]" if extra and extra != "gpu" else library
        seen = f"not installed ({why}); type: pip install '{install}'"
        return Check(library, None if library in OPTIONAL else False, seen)


def _hooks() -> Check:
    try:
        place = zero_code_directory()
    except CommandError as error:
        return Check("zero-code hooks", False, str(error))
    ours = importlib.util.find_spec("sitecustomize")
    chained = f", {ours.origin} runs as well" if ours and ours.origin and not ours.origin.startswith(str(place)) else ""
    return Check("zero-code hooks", True, f"{place}{chained}")


def _writable(directory: Path) -> Check:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        return Check("recording to", False, f"{directory}: {error.strerror}; set TORCHVITALS_DIR to another directory")
    return Check("recording to", True, str(directory))


def self_test() -> Check:
    """Train a tiny model in a process of its own under ``run``, and diagnose what it recorded."""
    with tempfile.TemporaryDirectory(prefix="torchvitals-doctor-") as scratch:
        environ = {**os.environ, "TORCHVITALS_DIR": scratch}
        command = [sys.executable, "-m", "torchvitals.agent.cli", "run", "--quiet", sys.executable, "-c", SELF_TEST]
        try:
            done = subprocess.run(  # noqa: S603 (our own interpreter, our own program)
                command, env=environ, capture_output=True, text=True, timeout=SELF_TEST_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            return Check("self-test", False, f"three steps took more than {SELF_TEST_SECONDS:.0f} s")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return Check("self-test", False, f"training failed with {done.returncode}: {last}")
        return _self_diagnosis(Path(scratch), done.stderr.strip())


def _self_diagnosis(scratch: Path, told: str) -> Check:
    try:
        from torchvitals.agent.offline import diagnose_directory

        report = diagnose_directory(find_run(LATEST, scratch))
    except ModuleNotFoundError as error:
        return Check("self-test", False, f"recorded, but diagnose needs {error.name}: pip install 'torchvitals[agent]'")
    except (CommandError, SpoolError) as error:
        return Check("self-test", False, f"nothing was recorded: {error}")
    good = report.steps == SELF_TEST_STEPS and report.state == "finished" and not report.incidents
    seen = f"{report.steps} of {SELF_TEST_STEPS} steps recorded and diagnosed, {len(report.incidents)} incidents"
    return Check("self-test", good, f"{seen}{'; ' + told if told and not good else ''}")
