"""Who this process is: its run, its rank, its machine. Read from the environment and from torch.distributed."""

import hashlib
import os
import platform
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torchvitals.signals.records import Hello


class Place(NamedTuple):
    """A process among the processes of its job."""

    rank: int
    world_size: int
    local_rank: int


def place(environ: Mapping[str, str] = os.environ) -> Place:
    """Rank and world size: from the process group when there is one, else from the launcher's variables.

    ``torch.multiprocessing.spawn`` workers set no variables, torchrun, SLURM and Open MPI each set their own.
    """
    group = _from_process_group()
    local = _first_integer(environ, "LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK")
    if group is not None:
        return Place(group[0], group[1], group[0] if local is None else local)
    rank = _first_integer(environ, "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK") or 0
    world = _first_integer(environ, "WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE") or 1
    return Place(rank, max(world, rank + 1), rank if local is None else local)


def run_name(environ: Mapping[str, str] = os.environ) -> str:
    """What people call the run: ``TORCHVITALS_NAME``, else the script's name."""
    script = sys.argv[0] if sys.argv else ""
    stem = os.path.splitext(os.path.basename(script))[0]  # noqa: PTH119, PTH122 (pathlib costs an import here)
    return environ.get("TORCHVITALS_NAME") or stem.strip("-") or "python"


def run_id(environ: Mapping[str, str] = os.environ) -> str:
    """The run this process belongs to.

    ``torchvitals run`` says so; otherwise the ranks of one torchrun or SLURM job agree on an id without
    talking to each other, from what their launcher gave them all; a lone process makes one up.
    """
    if chosen := environ.get("TORCHVITALS_RUN"):
        return chosen
    elastic = environ.get("TORCHELASTIC_RUN_ID", "") not in ("", "none")
    # An elastic launcher takes another port for each restart, and keeps its id.
    port = "" if elastic else "MASTER_PORT"
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", port)
    shared = [environ.get(name, "") for name in names]
    if any(shared):
        # The launcher is the parent of every rank on this host: it tells two jobs with one port apart.
        hosts = environ.get("GROUP_WORLD_SIZE", "1") != "1"
        parent = "" if shared[0] or hosts else f"{os.getppid()}"
        digest = hashlib.sha256("\0".join([*shared, parent]).encode()).hexdigest()[:8]
        return f"{run_name(environ)}-{digest}"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{run_name(environ)}-{secrets.token_hex(2)}"


def hello(role: str, environ: Mapping[str, str] = os.environ) -> Hello:
    """The ``Hello`` of this process."""
    here = place(environ)
    return Hello(
        run=run_id(environ),
        name=run_name(environ),
        rank=here.rank,
        world_size=here.world_size,
        local_rank=here.local_rank,
        host=socket.gethostname(),
        pid=os.getpid(),
        incarnation=_first_integer(environ, "TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT") or 0,
        python=platform.python_version(),
        torch=str(torch.__version__),  # a subclass of str that msgpack refuses
        device=device_name(),
        command=" ".join([sys.executable, *sys.argv])[:1000],
        role=role,
    )


def device_name() -> str:
    """``cpu``, or the name of the current CUDA device when the job has already started CUDA."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return torch.cuda.get_device_name()
    return "cpu"


def _from_process_group() -> tuple[int, int] | None:
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _first_integer(environ: Mapping[str, str], *keys: str) -> int | None:
    for key in keys:
        value = environ.get(key, "")
        if value.lstrip("-").isdigit():
            return int(value)
    return None
