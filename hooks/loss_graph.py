"""What the loss is made of, read off its graph before backward frees it: a softmax under a softmax."""

import math
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torchvitals.hooks.operation_line import nearest, operation_line

MOST_NODES = 64
"""Nodes looked at: sums, means and scales of losses, not the model."""
_SUMMING = (
    "Add", "Sub", "Mul", "Div", "Mean", "Sum", "Neg", "Stack", "NllLoss", "NllLoss2D", "ToCopy", "Squeeze", "View",
)  # fmt: skip
_SHAPING = (
    "View", "UnsafeView", "Reshape", "ReshapeAlias", "Transpose", "T", "Permute", "Squeeze", "Unsqueeze", "ToCopy",
    "Clone", "Slice", "Expand", "Alias",
)  # fmt: skip
_AGAIN = {
    "LogSoftmax": ("softmax", "nll_loss", ("Softmax",)),
    "BinaryCrossEntropyWithLogits": ("sigmoid", "binary_cross_entropy_with_logits", ("Sigmoid", "Softmax")),
}
"""Node of a loss that squashes its input itself → what it applies, how a job spells it, what must not feed it."""


def squashed_twice(loss: torch.Tensor, frames: list[FrameType]) -> dict[str, Any] | None:
    """The loss that squashes what a softmax or a sigmoid has squashed already; ``None`` when there is none.

    Cross-entropy of probabilities instead of scores can never come near zero, and its gradients are small: it trains,
    slowly and badly, which no curve gives away.
    """
    for node in _loss_nodes(loss):
        applied, spelled, forbidden = _AGAIN.get(_word(node), ("", "", ()))
        fed_by = _before_shaping(node)
        if applied and fed_by in forbidden:
            line = operation_line(spelled, frames)
            return {"outer": applied, "inner": fed_by.lower(), "line": str(line if line.file else nearest(frames))}
    return None


def start_of_classifier(loss: torch.Tensor) -> dict[str, float] | None:
    """The first cross-entropy in the graph of ``loss``: its classes, what guessing costs, and what it is."""
    for node in _loss_nodes(loss):
        scores, target = getattr(node, "_saved_self", None), getattr(node, "_saved_target", None)
        if _word(node) not in ("NllLoss", "NllLoss2D") or scores is None or target is None or scores.dim() < 2:
            continue
        classes = scores.shape[1]
        if scores.device.type != "cpu" or classes < 2:
            return None
        with torch.no_grad():
            left_out = (node._saved_ignore_index + (1 << 63)) % (1 << 64) - (1 << 63)  # kept without its sign
            value = torch.nn.functional.nll_loss(scores.float(), target, ignore_index=left_out)
        return {"classes": float(classes), "chance": math.log(classes), "loss": float(value)}
    return None


def _loss_nodes(loss: torch.Tensor) -> Iterator[Any]:
    """The nodes between the loss and the model, as far as they only add up, scale and reduce."""
    waiting, seen = deque([loss.grad_fn]), 0
    while waiting and seen < MOST_NODES:
        node = waiting.popleft()
        if node is None:
            continue
        seen += 1
        yield node
        if _word(node) in _SUMMING:
            waiting.extend(following for following, _ in node.next_functions)


def _before_shaping(node: Any) -> str:
    """The operation that made the first input of ``node``, whatever has only reshaped or cast it since."""
    for _ in range(MOST_NODES):
        following = node.next_functions[0][0] if node.next_functions else None
        if following is None:
            return ""
        node = following
        if _word(node) not in _SHAPING:
            return _word(node)
    return ""


def _word(node: Any) -> str:
    """``LogSoftmaxBackward0`` → ``LogSoftmax``."""
    return str(node.name()).rpartition("::")[2].partition("Backward")[0]
