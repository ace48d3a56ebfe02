"""What one counted step and one watched step cost, each by its median: for machines that others use as well.

    python -m benchmarks.step_costs --workload mlp --seconds 20

Blocks of a dozen steps of three jobs run in turn: bare, watched, bare. Steps that were only counted and steps that were
watched are told apart, and of each kind quantiles of their CPU time are shown beside those of the bare steps, which an
interruption of one step in ten does not move. How often a step is watched is not shown: taking turns makes it more
often. For what all of it costs see benchmarks/overhead.py, on a machine that nobody else uses.
"""

import argparse
import contextlib
import time

import numpy as np
import torch

from benchmarks.overhead_contenders import Contender, Torchvitals
from benchmarks.overhead_jobs import WORKLOADS, Job

BLOCK = 12
"""Steps of a job before the next one has its turn."""
WARM = 2
"""Steps before them, while its memory comes back into the caches."""
QUANTILES = (0.1, 0.25, 0.5)


def measure(workload: str, seconds: float) -> dict[str, list[float]]:
    """CPU seconds of single steps: ``bare``, ``counted``, ``watched``."""
    watched, bare = Torchvitals(Job(WORKLOADS[workload], "cpu")), [Contender(Job(WORKLOADS[workload], "cpu"))]
    bare.append(Contender(Job(WORKLOADS[workload], "cpu")))
    found: dict[str, list[float]] = {"bare": [], "counted": [], "watched": []}
    with contextlib.closing(watched):
        with watched.active():
            while not watched.spent_allowance():
                watched.step()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for job in (bare[0], watched, bare[1]):
                _block(job, watched, found)
    return found


def _block(job: Contender, watched: Torchvitals, found: dict[str, list[float]]) -> None:
    with job.active():
        for _ in range(WARM):
            job.step()
        for _ in range(BLOCK):
            counts = watched.monitor.observer.counted.left > 0
            began = time.thread_time()
            job.step()
            kind = "bare" if job is not watched else "counted" if counts else "watched"
            found[kind].append(time.thread_time() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--workload", default="mlp", choices=[name for name, job in WORKLOADS.items() if job.ranks == 1]
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(chosen.workload, chosen.seconds)
    seen = {kind: len(times) for kind, times in found.items()}
    print(f"{chosen.workload}: " + ", ".join(f"{number} {kind}" for kind, number in seen.items()))
    for share in QUANTILES:
        at = {kind: float(np.quantile(times, share)) if times else np.nan for kind, times in found.items()}
        bare = at["bare"]
        more = {kind: f"+{1e6 * (at[kind] - bare):.0f} µs (× {at[kind] / bare:.4f})" for kind in ("counted", "watched")}
        told = ", ".join(f"{kind} {text}" for kind, text in more.items())
        print(f"  quantile {share:4.2f}: bare {1e3 * bare:.3f} ms, {told}")


if __name__ == "__main__":
    main()
