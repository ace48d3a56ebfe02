"""Is a backward pass running? Then a forward is one of activation checkpointing, and a backward is inside another."""

from typing import Any

import torch

_running = 0


def inside_backward() -> bool:
    """Whether this code was called by autograd.

    Private: ``torch._C._current_graph_task_id``. Without it, whether any thread is in ``backward``, which is the
    same for all jobs but those that train in several threads at once.
    """
    task: Any = getattr(torch._C, "_current_graph_task_id", None)
    return bool(task() != -1) if task is not None else _running > 0


def entered() -> None:
    """``torch.autograd.backward`` begins."""
    global _running  # noqa: PLW0603 (autograd has one state per process too)
    _running += 1


def left() -> None:
    """``torch.autograd.backward`` has ended."""
    global _running  # noqa: PLW0603
    _running -= 1
