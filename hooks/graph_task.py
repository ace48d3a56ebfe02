"""Is a backward pass running? Then a forward is one of activation checkpointing, and a backward is inside another."""

from collections.abc import Callable
from typing import Any

import torch

_running = 0


def inside_backward() -> bool:
    """Whether this code was called by autograd.

    Private: ``torch._C._current_graph_task_id``. Without it, whether any thread is in ``backward``, which is the
    same for all jobs but those that train in several threads at once.
    """
    return pass_counter()() != -1


def pass_counter() -> Callable[[], int]:
    """What tells the number of the backward pass this code was called by, -1 outside of any."""
    return getattr(torch._C, "_current_graph_task_id", None) or (lambda: _running - 1)


def entered() -> None:
    """``torch.autograd.backward`` begins."""
    global _running  # noqa: PLW0603 (autograd has one state per process too)
    _running += 1


def left() -> None:
    """``torch.autograd.backward`` has ended."""
    global _running  # noqa: PLW0603
    _running -= 1


def current_node() -> Any:
    """The autograd node whose backward runs now, ``None`` outside of backward.

    Private: ``torch._C._current_autograd_node``. Without it what happens in backward has no node to be traced to.
    """
    node: Any = getattr(torch._C, "_current_autograd_node", None)
    return node() if node is not None and inside_backward() else None


def next_sequence_number() -> int:
    """The number the next autograd node of this thread will get, 0 where torch does not tell.

    Private: ``torch.autograd._get_sequence_nr``. Without it the lines that made a node are not known.
    """
    return node_counter()()


def node_counter() -> Callable[[], int]:
    """What tells the number of the next node."""
    return getattr(torch.autograd, "_get_sequence_nr", None) or int


def number_of(node: Any) -> int | None:
    """The number of an autograd node, ``None`` where there is no node or it has none.

    Private: ``_sequence_nr``. Without it a forward whose end nobody heard is not told from the loss behind it.
    """
    number = getattr(node, "_sequence_nr", None)
    return number() if number is not None else None
