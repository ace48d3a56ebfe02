"""What one step costs by its kind, from the steps themselves: for machines that others use as well.

    python -m benchmarks.step_costs --workload mlp --seconds 20

Blocks of a dozen steps of one job run in turn: bare, watched. Steps that are watched, that are only counted,
and light ones among those (see hooks/counted.py) are told apart, and of each kind quantiles of their CPU time are shown
beside those of the bare steps, which an interruption of one step in ten does not move. Taking turns makes watched steps
more frequent: how frequent each kind is otherwise is counted while the job runs by itself, and from both follows what
all of it costs. Of several ranks, each a process of its own, all take the same steps and rank 0 tells. On a machine
that nobody else uses benchmarks/overhead.py shows that by itself.
"""

import argparse
import contextlib
import time

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.overhead_contenders import Torchvitals
from benchmarks.overhead_jobs import WORKLOADS, Job
from benchmarks.ranks import agreed, measured

BLOCK = 12
"""Steps of a job before the next one has its turn."""
WARM = 2
"""Steps before them, while its memory comes back into the caches."""
QUANTILES = (0.1, 0.25, 0.5)
KINDS = ("light", "counted", "watched")


def measure(workload: str, seconds: float) -> tuple[dict[str, list[float]], dict[str, float]]:
    """CPU seconds of single steps by their kind, bare ones included, and the share of each kind in a job left alone."""
    watched = Torchvitals(Job(WORKLOADS[workload], "cpu"))
    found: dict[str, list[float]] = {kind: [] for kind in ("bare", *KINDS)}
    with contextlib.closing(watched):
        with watched.active():
            while not agreed(int(watched.begun()), dist.ReduceOp.MIN):
                _steps(watched, BLOCK)
        shares = _shares(watched, seconds / 4)
        end = time.monotonic() + seconds
        while agreed(int(time.monotonic() < end)):
            _bare_block(watched, found["bare"])
            _watched_block(watched, found)
    return found, shares


def _shares(watched: Torchvitals, seconds: float) -> dict[str, float]:
    with watched.active():
        kinds: list[str] = []
        end = time.monotonic() + seconds
        while agreed(int(time.monotonic() < end)):
            kinds += _steps(watched, BLOCK)
    return {kind: kinds.count(kind) / len(kinds) for kind in KINDS}


def _steps(watched: Torchvitals, steps: int) -> list[str]:
    """Make them; of which kind each was."""
    kinds = []
    for _ in range(steps):
        kinds.append(_kind(watched))
        watched.step()
    return kinds


def _kind(watched: Torchvitals) -> str:
    """Of the step that ``watched`` is about to make."""
    counted = watched.monitor.observer.counted
    return "light" if counted.light else "counted" if counted.left else "watched"


def _bare_block(job: Torchvitals, found: list[float]) -> None:
    with job.bare():
        for _ in range(WARM):
            job.job.step()
        for _ in range(BLOCK):
            began = time.thread_time()
            job.job.step()
            found.append(time.thread_time() - began)


def _watched_block(job: Torchvitals, found: dict[str, list[float]]) -> None:
    with job.active():
        for _ in range(WARM):
            job.step()
        for _ in range(BLOCK):
            kind = _kind(job)
            began = time.thread_time()
            job.step()
            found[kind].append(time.thread_time() - began)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", default="mlp", choices=list(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=20.0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found, shares = measured(measure, WORKLOADS[chosen.workload].ranks, chosen.workload, chosen.seconds)
    alone = ", ".join(f"{share:.2%} {kind}" for kind, share in shares.items())
    print(f"{chosen.workload}: {len(found['bare'])} bare steps; left alone {alone}")
    for quantile in QUANTILES:
        at = {kind: float(np.quantile(times, quantile)) for kind, times in found.items() if times}
        bare = at.pop("bare")
        more = [f"{kind} +{1e6 * (seconds - bare):.0f} µs" for kind, seconds in at.items()]
        together = sum(shares[kind] * (seconds - bare) for kind, seconds in at.items())
        more.append(f"together +{1e6 * together:.0f} µs (× {1 + together / bare:.4f})")
        print(f"  quantile {quantile:4.2f}: bare {1e3 * bare:.3f} ms, {', '.join(more)}")


if __name__ == "__main__":
    main()
