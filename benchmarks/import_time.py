"""What starting torchvitals costs a process: CPU time of imports, in fresh interpreters, interleaved.

    python -m benchmarks.import_time                    # the table below
    python -m benchmarks.import_time --repeats 40 --json import_time.json
    python -m benchmarks.import_time --modules          # which module takes how much (-X importtime)

Timed are `import torchvitals.hooks` where torch is there already (what ``attach`` adds to a script), what
`torchvitals run` starts behind the import of torch in every child, a whole Python process that never imports torch,
with its `sitecustomize` and without, and the import of torch itself, to compare with. CPU time of the process is
taken, since wall time is the neighbours' affair; the smallest of many is what the machine needs, the median what it
took while this ran. The collector is off: a pass of it over torch's objects takes 60 ms, and in whose import its turn
comes is decided by a few hundred objects more or less.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

IN_PROCESS = """
import gc, time, {before}
gc.disable()
began = time.process_time()
import {module}
print(time.process_time() - began)
"""


ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
"""An installed package has its byte code; without, each import would compile 10,000 lines."""


def zero_code() -> str:
    """The directory that `torchvitals run` puts on PYTHONPATH."""
    spec = find_spec("torchvitals.hooks")
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next(str(Path(place) / "zero_code") for place in places if (Path(place) / "zero_code").is_dir())


def imported(module: str, before: str) -> float:
    """Seconds of CPU for `import module` once `before` is imported."""
    script = IN_PROCESS.format(module=module, before=before)
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def whole_process(*, watched: bool) -> float:
    """Seconds of CPU of a Python process that does nothing."""
    path = os.pathsep.join([zero_code(), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])])
    added = {"TORCHVITALS_RUN": "benchmark", "PYTHONPATH": path} if watched else {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", ""], env={**ENVIRONMENT, **added}, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


MEASURED: dict[str, Callable[[], float]] = {
    "import torch": lambda: imported("torch", "sys"),
    "import torchvitals.hooks, torch being there": lambda: imported("torchvitals.hooks", "torch"),
    "start of `torchvitals run`, torch being there": lambda: imported("torchvitals.hooks.unattended", "torch"),
    "a Python process without torch": lambda: whole_process(watched=False),
    "the same under `torchvitals run`": lambda: whole_process(watched=True),
}


def by_module(threshold_us: int = 500) -> list[tuple[int, int, str]]:
    """Own and cumulative microseconds of what `import torchvitals.hooks` brings, largest first."""
    script = "import torch, sys; sys.stderr.write('begin\\n'); import torchvitals.hooks"
    command = [sys.executable, "-X", "importtime", "-c", script]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    lines = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| +(\S+)", done.stderr.partition("begin\n")[2])
    found = [(int(own), int(total), name) for own, total, name in lines]
    return sorted((row for row in found if row[0] >= threshold_us), reverse=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--modules", action="store_true")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.modules:
        for own, total, name in by_module():
            print(f"{own / 1e3:8.2f} ms itself {total / 1e3:8.2f} ms with what it imports  {name}")
        return
    seconds: dict[str, list[float]] = {name: [] for name in MEASURED}
    for _ in range(chosen.repeats + 1):
        for name, measure in MEASURED.items():
            seconds[name].append(measure())
    print(f"milliseconds of CPU, {chosen.repeats} interpreters each   smallest   median")
    for name, found in seconds.items():
        kept = found[1:]  # the first ones write the byte code
        print(f"  {name:46s} {min(kept) * 1e3:10.1f} {statistics.median(kept) * 1e3:8.1f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(seconds, indent=1))


if __name__ == "__main__":
    main()
