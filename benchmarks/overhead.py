"""What watching costs: interleaved blocks of steps, watched and bare, in one process.

    python -m benchmarks.overhead                       # the table below, and overhead.json
    python -m benchmarks.overhead --workloads mlp --contenders torchvitals --blocks 40
    python -m benchmarks.overhead --device cuda

Each contender trains its own copy of the model, from one seed, on one batch. Blocks of all contenders run
in turn, so that a slow minute of the machine hits them alike; each block's CPU time (wall time on CUDA) is
divided by the mean of the blocks before and after it in which the same copy is trained without being watched: where
the memory of two copies lies has made them differ by more than what is to be measured. The table shows the median
ratio and the middle half. Of several ranks, each a process of its own, rank 0 is timed and all take the same steps.
A job that nobody ever watches is always one of the contenders: its spread is that of the machine.

torchvitals is measured after its start: when its allowance (a second of work, see hooks/budget.py) is spent, and the
digests that make runs comparable, 16 per doubling of steps and some milliseconds each, are rarer than looks. That is
what it costs for the rest of the run. ``--with-allowance`` measures the first steps.

What is not installed is left out and named: pip install wandb torchmortem.
"""

import argparse
import contextlib
import json
import platform
import statistics
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.overhead_contenders import CONTENDERS, Contender
from benchmarks.overhead_jobs import WORKLOADS, Job, describe
from benchmarks.ranks import agreed, hush, measured

BLOCK_SECONDS = 0.4
"""In so long there is a look at a watched step even where steps cannot pay for any (one a second)."""
MOST_STEPS_TO_BEGIN = 100_000
WARM = 2
"""Steps before the clock: the first after hooks come or go is compiled anew, where a model is compiled."""


def measure(workload: str, names: list[str], blocks: int, device: str, *, allowance: bool) -> dict[str, Any]:
    """Ratios of each contender's watched blocks to the bare ones beside them, and the bare step in milliseconds."""
    with contextlib.ExitStack() as closing:
        contenders, refused = _prepare(workload, names, device, closing)
        for contender in contenders.values():
            if not allowance:
                _begin(contender, device)
            _block(contender, 5, device)
            steps = max(5, round(BLOCK_SECONDS / (_block(contender, 10, device, watched=False) / 10)))
        steps = agreed(steps)
        ratios: dict[str, list[float]] = {name: [] for name in contenders}
        bare_seconds = []
        for _ in range(blocks):
            for name, found in ratios.items():
                before = _block(contenders[name], steps, device, watched=False)
                seconds = _block(contenders[name], steps, device)
                after = _block(contenders[name], steps, device, watched=False)
                found.append(2 * seconds / (before + after))
                bare_seconds += [before / steps, after / steps]
    return {
        "workload": workload,
        **describe(WORKLOADS[workload]),
        "device": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "clock": "wall" if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "step_ms": statistics.median(bare_seconds) * 1e3,
        "steps": steps,
        "ratios": ratios,
        "summary": {name: _summary(found) for name, found in ratios.items()},
        "refused": refused,
    }


def _prepare(
    workload: str, names: list[str], device: str, closing: contextlib.ExitStack
) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders, warm; and those whose hooks do not go with this model, with the reason, which is a result too."""
    contenders: dict[str, Contender] = {}
    refused: dict[str, str] = {}
    for name in names:
        contender = CONTENDERS[name](Job(WORKLOADS[workload], device))
        closing.callback(contender.close)
        try:
            _block(contender, 5, device)
        except (RuntimeError, AttributeError, ValueError) as error:
            refused[name] = f"{type(error).__name__}: {error}"[:200]
        else:
            contenders[name] = contender
    return contenders, refused


def _begin(contender: Contender, device: str) -> None:
    """Train until what the start costs has been paid on every rank."""
    for _ in range(MOST_STEPS_TO_BEGIN // 20):
        if agreed(int(contender.begun()), dist.ReduceOp.MIN):
            return
        _block(contender, 20, device)


def _block(contender: Contender, steps: int, device: str, *, watched: bool = True) -> float:
    """Seconds of ``steps`` steps: CPU time of this thread, or wall time up to an idle device."""
    step = contender.step if watched else contender.job.step
    with contender.active() if watched else contender.bare():
        for _ in range(WARM):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        clock = time.perf_counter if device == "cuda" else time.thread_time
        began = clock()
        for _ in range(steps):
            step()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - began


def _summary(ratios: list[float]) -> dict[str, float]:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high, "least": min(ratios), "most": max(ratios)}


def table(results: list[dict[str, Any]]) -> str:
    """The results as text."""
    lines = []
    for result in results:
        lines.append(f"{result['workload']}: bare step {result['step_ms']:.2f} ms, {result['steps']} steps a block")
        for name, found in result["summary"].items():
            spread = f"({found['lower_quartile']:.4f} to {found['upper_quartile']:.4f})"
            lines.append(f"  {name:36s} × {found['median']:.4f}   {spread}")
        lines += [f"  {name:36s} not possible: {why}" for name, why in result["refused"].items()]
    return "\n".join(lines)


def _installed(names: list[str]) -> list[str]:
    """Those of ``names`` whose package is there; what is left out is told."""
    absent = {CONTENDERS[name].needs for name in names} - {""}
    absent = {package for package in absent if find_spec(package) is None}
    if absent:
        print(f"left out, not installed: pip install {' '.join(sorted(absent))}")
    return [name for name in names if CONTENDERS[name].needs not in absent]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS))
    parser.add_argument("--contenders", nargs="+", default=None, choices=sorted(CONTENDERS))
    parser.add_argument("--blocks", type=int, default=15)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--with-allowance", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("overhead.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    hush()
    names = _installed(["nobody", *(name for name in chosen.contenders or CONTENDERS if name != "nobody")])
    results = []
    for workload in chosen.workloads:
        if WORKLOADS[workload].ranks > 1 and chosen.device == "cuda":
            print(f"{workload}: on CPU only, its ranks share one machine")
            continue
        options = {"allowance": chosen.with_allowance}
        asked = (workload, names, max(2, chosen.blocks), chosen.device)
        results.append(measured(measure, WORKLOADS[workload].ranks, *asked, **options))
        print(table(results[-1:]), flush=True)
        chosen.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
