"""What watching keeps in memory: the same training in fresh processes, watched and bare by turns.

    python -m benchmarks.memory_kept
    python -m benchmarks.memory_kept --workloads mlp transformer --seconds 20 --repeats 5

Of each process two numbers are taken: what is resident at the end, when the collector has run and the allocator has
given back what is free, and the most that was ever resident. A watched process has our code, its threads, what was kept
of the job's past, and buffers of the spool beyond a bare one; the median difference is shown, in MiB. The bound is one
hundredth of the model or 16 MiB, whichever is more.
"""

import argparse
import ctypes
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.overhead_jobs import WORKLOADS, Job

MIB = 1 << 20
SHARE, LEAST = 0.01, 16 * MIB
"""Of the model's bytes, and what a small model may cost all the same."""
WARM_STEPS = 3
"""Steps before anybody watches: the optimizer's state and the buffers of kernels are there then in both."""


class Resident(NamedTuple):
    """Bytes of one process: at its end, and at most."""

    end: int
    peak: int


def trained(workload: str, seconds: float, *, watched: bool) -> Resident:
    """Train in this process for so many seconds of CPU time."""
    job = Job(WORKLOADS[workload], "cpu")
    for _ in range(WARM_STEPS):
        job.step()
    with tempfile.TemporaryDirectory() as directory:
        if watched:
            from torchvitals.hooks import attach

            monitor = attach(job.model, job.optimizer, directory=directory)
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            job.step()
        found = _resident()
        if watched:
            monitor.detach()
    return found


def _resident() -> Resident:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Resident(pages * resource.getpagesize(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10)


def in_a_process(workload: str, seconds: float, *, watched: bool) -> Resident:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory_kept", "--workloads", workload, "--seconds", str(seconds)]
    done = subprocess.run([*command, "--child", str(int(watched))], capture_output=True, text=True, check=True)
    return Resident(*json.loads(done.stdout))


def bound(workload: str) -> int:
    """Bytes that watching ``workload`` may keep."""
    model = WORKLOADS[workload].build()
    return max(LEAST, int(SHARE * sum(p.nbytes for p in model.parameters())))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = [name for name, workload in WORKLOADS.items() if workload.ranks == 1]
    parser.add_argument("--workloads", nargs="+", default=several, choices=several)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", type=int, choices=[0, 1], help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.child is not None:
        print(json.dumps(trained(chosen.workloads[0], chosen.seconds, watched=bool(chosen.child))))
        return
    print(f"{'MiB, watched less bare':26s} {'kept':>6s} {'peak':>6s} {'bound':>6s} {'bare process':>14s}")
    for workload in chosen.workloads:
        pairs = [
            [in_a_process(workload, chosen.seconds, watched=watched) for watched in (True, False)]
            for _ in range(chosen.repeats)
        ]
        kept = statistics.median(watched.end - bare.end for watched, bare in pairs) / MIB
        peak = statistics.median(watched.peak - bare.peak for watched, bare in pairs) / MIB
        whole = statistics.median(bare.end for _, bare in pairs) / MIB
        print(f"{workload:26s} {kept:6.1f} {peak:6.1f} {bound(workload) / MIB:6.1f} {whole:14.1f}", flush=True)


if __name__ == "__main__":
    main()
