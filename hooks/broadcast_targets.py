"""Answers and targets that lie across each other in the loss: (n, 1) against (n,) makes every pair of an n x n table.

The mean of such a table is least where every answer is the mean of all targets: the model trains, and learns that.
PyTorch warns of it where ``mse_loss`` and its like are called, and nobody does where the difference is written out.
"""

from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torchvitals.hooks.loss_graph import loss_nodes, operation
from torchvitals.hooks.operation_line import nearest, operation_line

_DIFFERENCES = {
    "Sub": "sub", "Rsub": "rsub", "MseLoss": "mse_loss", "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss",
}  # fmt: skip
"""Node that takes targets off answers → how a job spells it."""
_OF_A_DIFFERENCE = ("Pow", "Abs", "Log", "Cosh", "Sqrt", "LogCosh", "Softplus")
"""What errors are made of differences. An exponential is none: a kernel is meant to see each pair."""
_WEIGHING = "Mul"
Shape = tuple[int, ...]


def crossed(loss: torch.Tensor, frames: list[FrameType]) -> dict[str, Any] | None:
    """The difference in the graph of ``loss`` that is one of all pairs; ``None`` when there is none.

    Only where the targets have no gradient, and nothing but errors is summed up: distances of answers from each other,
    a kernel, and a table weighed entry by entry (a transport plan) are made of pairs on purpose. Shapes are private to
    autograd (``Node._input_metadata``); without them nothing is told.

    >>> answers, targets = torch.zeros(8, 1, requires_grad=True), torch.arange(8.0)
    >>> crossed((answers - targets).square().mean(), [])["answers"]
    '(8, 1)'
    >>> crossed((answers - targets[:, None]).square().mean(), [])
    """
    nodes = list(loss_nodes(loss))
    differences = [difference for node in nodes for difference in _differences(node)]
    for node in differences:
        wide, narrow = _wide(node), _narrow(node)
        if wide is None or narrow is None or len(wide) != 2 or wide[0] != wide[1] or wide[0] < 2:
            continue
        if narrow not in ((wide[0], 1), (wide[0],)) or any(_of_pairs(other, wide) for other in (*nodes, *differences)):
            continue
        line = operation_line(_DIFFERENCES[operation(node)], frames)
        targets = (wide[0],) if len(narrow) == 2 else (wide[0], 1)
        return {
            "answers": str(narrow), "targets": str(targets), "pairs": str(wide),
            "line": str(line if line.file else nearest(frames)),
        }  # fmt: skip
    return None


def _differences(node: Any) -> Iterator[Any]:
    """``node`` if it takes targets off answers, or the one that an error was made of."""
    for _ in range(len(_OF_A_DIFFERENCE)):
        if operation(node) in _DIFFERENCES:
            yield node
            return
        if operation(node) not in _OF_A_DIFFERENCE or not node.next_functions or node.next_functions[0][0] is None:
            return
        node = node.next_functions[0][0]


def _wide(node: Any) -> Shape | None:
    """The shape of the difference."""
    saved = getattr(node, "_saved_self", None)
    return tuple(saved.shape) if isinstance(saved, torch.Tensor) else _shape(node, 0)


def _narrow(node: Any) -> Shape | None:
    """The shape of the answers before they were made as wide; ``None`` where both sides have a gradient."""
    sides = [(side, place) for side, place in node.next_functions if side is not None]
    if len(sides) != 1:
        return None
    side, place = sides[0]
    if operation(side) == "Expand":
        side, place = side.next_functions[0]
    return _shape(side, place)


def _of_pairs(node: Any, wide: Shape) -> bool:
    """Whether ``node`` shows that the table is meant: answers among each other, or a weight for each pair."""
    if operation(node) == _WEIGHING:
        sides = (getattr(node, f"_saved_{name}", None) for name in ("self", "other"))
        weights = [side for side in sides if isinstance(side, torch.Tensor) and not side.requires_grad]
        return any(tuple(weight.shape) == wide and 0 not in weight.stride() for weight in weights)
    both = sum(side is not None for side, _ in node.next_functions) == 2
    return operation(node) in _DIFFERENCES and both and _wide(node) == wide


def _shape(node: Any, place: int) -> Shape | None:
    outputs = getattr(node, "_input_metadata", None)
    return tuple(outputs[place].shape) if outputs and place < len(outputs) else None
