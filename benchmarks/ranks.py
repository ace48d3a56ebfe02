"""A measurement on several ranks of this machine: each a process of its own, all take the same steps, rank 0 tells."""

import json
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def measured(measure: Callable[..., Any], ranks: int, *arguments: Any, **options: Any) -> Any:
    """What ``measure(*arguments, **options)`` gives, on rank 0 where there are several: something that JSON can hold.

    ``measure`` is a function of a module, since it is sent to other processes.
    """
    if ranks == 1:
        return measure(*arguments, **options)
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (ranks, folder, partial(measure, *arguments, **options)), nprocs=ranks)
        return json.loads((Path(folder) / "result.json").read_text())


def agreed(number: int, operation: Any = dist.ReduceOp.MAX) -> int:
    """The same number on all ranks, which must take the same steps."""
    if not dist.is_initialized():
        return number
    told = torch.tensor(number)
    dist.all_reduce(told, operation)
    return int(told)


def hush() -> None:
    """Anomaly mode warns that it is slow, which is measured here, and torchmortem's hooks of what they do not see."""
    warnings.filterwarnings("ignore", message="Anomaly Detection has been enabled|Full backward hook is firing")


def _rank(rank: int, ranks: int, folder: str, measure: Callable[[], Any]) -> None:
    torch.set_num_threads(1)
    hush()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    result = measure()
    dist.destroy_process_group()
    if rank == 0:
        (Path(folder) / "result.json").write_text(json.dumps(result))
