"""How the ranks ended, from the process that started them: only a parent is told the exit code of its child."""

import os
from collections.abc import Mapping
from typing import Any

import msgspec
from torchvitals.hooks import identity
from torchvitals.signals.records import LAUNCHER_RANK, Event
from torchvitals.signals.spool import SpoolWriter, default_directory

MODULES = ("torch.distributed.elastic", "torch.multiprocessing.spawn")
"""Where the exceptions are defined by which a parent reports how its children ended: theirs to tell, not its own."""

LAUNCHERS = ("torch.distributed.run", "accelerate.commands.launch", "deepspeed.launcher.runner")
"""Modules whose process starts trainings and does not train itself."""


def is_report(kind: type[BaseException]) -> bool:
    """Whether an exception of this type reports the end of children."""
    return kind.__module__.startswith(MODULES)


def children_of(error: BaseException) -> list[dict[str, Any]]:
    """``rank``, ``pid`` and exit ``code`` (negative for a signal) of the children that failed, first one first.

    Read from torchrun's ``ChildFailedError.failures`` and from what ``mp.spawn`` raises; other exceptions, and those
    of a torch that names these fields otherwise, tell nothing.
    """
    failures = getattr(error, "failures", None)
    if isinstance(failures, Mapping):
        found = sorted(failures.items(), key=lambda item: (getattr(item[1], "timestamp", 0), item[0]))
        told = [(rank, getattr(each, "pid", None), getattr(each, "exitcode", None)) for rank, each in found]
    else:
        rank, pid = getattr(error, "error_index", None), getattr(error, "error_pid", None)
        told = [(rank, pid, getattr(error, "exit_code", 1))]
    return [{"rank": r, "pid": p, "code": c} for r, p, c in told if all(isinstance(each, int) for each in (r, p, c))]


def report(error: BaseException, event: Event) -> bool:
    """Write what ``error`` says of children, under the launcher's rank; ``False`` when it says nothing.

    Without ``torchvitals run`` nobody knows which run the children belong to, and nothing is written.
    """
    children = children_of(error)
    if not children or not os.environ.get("TORCHVITALS_RUN"):
        return False
    hello = msgspec.structs.replace(identity.hello("launcher"), rank=LAUNCHER_RANK, world_size=0)
    writer = SpoolWriter(default_directory(), hello)
    written = writer.write(msgspec.structs.replace(event, kind="children", details={"children": children}))
    writer.close()
    return written
