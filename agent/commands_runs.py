"""``torchvitals runs``: what was recorded, from the directory listing alone."""

import argparse
import json
import time
from pathlib import Path

from torchvitals.signals.reader import RunListing, list_runs
from torchvitals.signals.spool import default_directory


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=None, help="where runs are recorded (TORCHVITALS_DIR)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def execute(args: argparse.Namespace) -> int:
    directory = args.dir or default_directory()
    runs = list_runs(directory)
    if args.json:
        for run in runs:
            print(json.dumps({**run._asdict(), "path": str(run.path)}))
        return 0
    if not runs:
        print(f"no runs yet in {directory}; record one with: torchvitals run python train.py")
        return 0
    width = max(len(run.run) for run in runs)
    print(f"{'run':{width}}  {'started':19}  processes  command")
    for run in runs:
        print(_line(run, width))
    return 0


def _line(run: RunListing, width: int) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started))
    return f"{run.run:{width}}  {started}  {run.processes:9d}  {run.command}"
