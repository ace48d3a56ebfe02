"""What the loss is made of, read off its graph before backward frees it: a softmax under a softmax, a turned sign."""

import math
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
from torchvitals.hooks.operation_line import nearest, operation_line

_OUTSIDE = 0.5
"""Real images have been labelled up to 1.2 on purpose; the nearest mistakes are labels of -1 and 2."""
_ABOVE, _NO_SUM, _MOST_ROWS = 1e-3, 0.05, 0.5
"""Bfloat16 rounds a log-probability of 0 to no more than that, and their sum to 1 within a percent."""
MOST_NODES = 64
"""Nodes looked at: sums, means and scales of losses, not the model."""
MOST_OF_A_FORWARD = 20_000
"""Nodes of a whole forward that are looked at, 20 ms: one of 1,000 layers has fewer."""
SUMMING = (
    "Add", "Sub", "Mul", "Div", "Mean", "Sum", "Neg", "Stack", "NllLoss", "NllLoss2D", "ToCopy", "Squeeze", "View",
    "MaskedFill", "Sqrt",
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

_BINARY = {
    "BinaryCrossEntropyWithLogits": torch.nn.functional.binary_cross_entropy_with_logits,
    "BinaryCrossEntropy": torch.nn.functional.binary_cross_entropy,
}


def leaves(loss: torch.Tensor | None) -> list[torch.Tensor]:
    """The leaves that ``loss`` was computed from, those nearest to the input first; also after backward.

    >>> weight, bias = torch.ones(2, requires_grad=True), torch.zeros(1, requires_grad=True)
    >>> [leaf is weight for leaf in leaves((weight.exp().sum() + bias).sum())]
    [True, False]
    """
    if loss is None or loss.grad_fn is None:
        return []
    found: dict[Any, torch.Tensor | None] = {loss.grad_fn: None}
    waiting = deque(found)
    while waiting and len(found) < MOST_OF_A_FORWARD:
        for edge, _ in waiting.popleft().next_functions:
            if edge is not None and edge not in found:
                found[edge] = getattr(edge, "variable", None)
                waiting.append(edge)
    return [leaf for leaf in found.values() if leaf is not None][::-1]


def squashed_twice(loss: torch.Tensor, frames: list[FrameType]) -> dict[str, Any] | None:
    """The loss that squashes what a softmax or a sigmoid has squashed already; ``None`` when there is none.

    Cross-entropy of probabilities instead of scores can never come near zero, and its gradients are small: it trains,
    slowly and badly, which no curve gives away.
    """
    for node in loss_nodes(loss):
        applied, spelled, forbidden = _AGAIN.get(operation(node), ("", "", ()))
        fed_by = before_shaping(node)
        if applied and fed_by in forbidden:
            line = operation_line(spelled, frames)
            return {"outer": applied, "inner": fed_by.lower(), "line": str(line if line.file else nearest(frames))}
    return None


def start_of_classifier(loss: torch.Tensor) -> dict[str, float] | None:
    """The first cross-entropy in the graph of ``loss``: its classes, what guessing costs, and what it is.

    A binary one has two classes, whatever the number of its labels; the weights of classes are left out.

    >>> scores = torch.full((4, 1), 40.0, requires_grad=True)
    >>> loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, torch.zeros(4, 1))
    >>> {name: round(value, 2) for name, value in start_of_classifier(loss).items()}
    {'classes': 2.0, 'chance': 0.69, 'loss': 40.0}
    """
    for node in loss_nodes(loss):
        scores, target = getattr(node, "_saved_self", None), getattr(node, "_saved_target", None)
        kind = operation(node)
        if kind not in ("NllLoss", "NllLoss2D", *_BINARY) or scores is None or target is None:
            continue
        if kind not in _BINARY and scores.dim() < 2:
            continue
        classes = 2 if kind in _BINARY else scores.shape[1]
        if scores.device.type != "cpu" or classes < 2 or not scores.numel():
            return None
        with torch.no_grad(), torch.autocast("cpu", enabled=False):  # which forbids one of them
            if kind in _BINARY:
                value = _BINARY[kind](scores.float(), target.float())
            else:
                left_out = (node._saved_ignore_index + (1 << 63)) % (1 << 64) - (1 << 63)  # kept without its sign
                value = torch.nn.functional.nll_loss(scores.float(), target, ignore_index=left_out)
        return {"classes": float(classes), "chance": math.log(classes), "loss": float(value)}
    return None


def start_of_regressor(loss: torch.Tensor) -> dict[str, float] | None:
    """How large the answers and the targets of the first squared error in the graph of ``loss`` are: 2-norms by entry.

    >>> answers = torch.full((4,), 3e4, requires_grad=True)
    >>> start_of_regressor(torch.nn.functional.mse_loss(answers, torch.ones(4)))
    {'answers': 30000.0, 'targets': 1.0}
    """
    for node in loss_nodes(loss):
        answers, targets = getattr(node, "_saved_self", None), getattr(node, "_saved_target", None)
        if operation(node) != "MseLoss" or answers is None or targets is None:
            continue
        if not answers.is_cpu or not answers.numel():
            return None
        sizes = [float(torch.linalg.vector_norm(t.detach().float())) / t.numel() ** 0.5 for t in (answers, targets)]
        return {"answers": sizes[0], "targets": sizes[1]}
    return None


def invalid_targets(loss: torch.Tensor, frames: list[FrameType]) -> dict[str, Any] | None:
    """Targets far outside of 0 to 1 in a binary cross-entropy with logits, which takes them without a word.

    It has no lowest value then: the scores are driven to infinity and the loss below zero. Labels that are smoothed by
    noise may lie a little outside.
    """
    for node in loss_nodes(loss):
        target = getattr(node, "_saved_target", None)
        if operation(node) != "BinaryCrossEntropyWithLogits" or target is None or target.device.type != "cpu":
            continue
        low, high = (float(value) for value in torch.aminmax(target.detach())) if target.numel() else (0.0, 1.0)
        if low < -_OUTSIDE or high > 1 + _OUTSIDE:
            line = operation_line("binary_cross_entropy_with_logits", frames)
            return {"low": low, "high": high, "line": str(line if line.file else nearest(frames))}
    return None


def no_log_probabilities(loss: torch.Tensor, frames: list[FrameType]) -> dict[str, Any] | None:
    """A negative log-likelihood that is given scores or probabilities: it takes both without a word.

    A log-probability is never above 0, and those of all classes are one probability together. What is above 0 in most
    rows and does not sum to 1 is something else; of scores the loss has no lowest value.
    """
    for node in loss_nodes(loss):
        if divergence := _divergence_of_probabilities(node, frames):
            return divergence
        given = getattr(node, "_saved_self", None)
        if operation(node) not in ("NllLoss", "NllLoss2D") or given is None or _of_logarithms(node):
            continue
        if given.device.type != "cpu" or given.dim() < 2 or not given.numel():
            continue
        values = given.detach().float()
        above = values.amax(1) > _ABOVE
        if float((above & (values.logsumexp(1).abs() > _NO_SUM)).float().mean()) < _MOST_ROWS:
            continue
        probabilities = bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < _NO_SUM).all())
        line = operation_line("nll_loss", frames)
        what = "probabilities" if probabilities else "scores"
        return {"given": what, "line": str(line if line.file else nearest(frames))}
    return None


def softmax_over_batch(loss: torch.Tensor, frames: list[FrameType]) -> dict[str, Any] | None:
    """A likelihood of labels that is given a ``log_softmax`` over the rows: ``dim=0``, where classes are in 1.

    Of a square matrix both may be meant: a contrastive loss looks from the texts to the images, too.
    """
    for node in loss_nodes(loss):
        given, inner = getattr(node, "_saved_self", None), node.next_functions[0][0] if node.next_functions else None
        if operation(node) != "NllLoss" or given is None or given.dim() != 2 or inner is None:
            continue
        rows, classes = given.shape
        over_rows = operation(inner) == "LogSoftmax" and getattr(inner, "_saved_dim", None) in (0, (1 << 64) - 2)
        if over_rows and rows != classes and rows > 1:
            line = operation_line("nll_loss", frames)
            return {"rows": rows, "classes": classes, "line": str(line if line.file else nearest(frames))}
    return None


def _divergence_of_probabilities(node: Any, frames: list[FrameType]) -> dict[str, Any] | None:
    """A ``kl_div`` whose first argument comes straight out of a softmax: it is taken for a logarithm without a word.

    Its graph is ``t log t - t * input`` or ``exp(t) * (t - input)`` by entry, which others may write for reasons of
    their own; so the job must spell it, too.
    """
    if operation(node) not in ("Sub", "Mul") or len(node.next_functions) < 2:
        return None
    second = node.next_functions[1][0]
    inner = "Mul" if operation(node) == "Sub" else "Sub"
    if second is None or operation(second) != inner or before_shaping(second, 1) not in ("Softmax", "Sigmoid"):
        return None
    line = operation_line("kl_div", frames)
    return {"given": "probabilities", "loss": "Kullback-Leibler divergence", "line": str(line)} if line.file else None


def _of_logarithms(node: Any) -> bool:
    """Whether ``node`` is given logarithms, which may have been weighted since, as by the advantages of a policy."""
    waiting, seen = deque(following for following, _ in node.next_functions[:1]), 0
    while waiting and seen < MOST_NODES:
        following = waiting.popleft()
        if following is None:
            continue
        seen += 1
        name = operation(following)
        if name.startswith("Log"):
            return True
        if name in SUMMING or name in _SHAPING or name in ("Where", "Index"):
            waiting.extend(each for each, _ in following.next_functions)
    return False


def loss_nodes(loss: torch.Tensor) -> Iterator[Any]:
    """The nodes between the loss and the model, as far as they only add up, scale and reduce."""
    waiting, seen = deque([loss.grad_fn]), 0
    while waiting and seen < MOST_NODES:
        node = waiting.popleft()
        if node is None:
            continue
        seen += 1
        yield node
        if operation(node) in SUMMING:
            waiting.extend(following for following, _ in node.next_functions)


def before_shaping(node: Any, place: int = 0) -> str:
    """The operation that made an input of ``node``, whatever has only reshaped or cast it since."""
    for _ in range(MOST_NODES):
        following = node.next_functions[place][0] if node.next_functions else None
        place = 0
        if following is None:
            return ""
        node = following
        if operation(node) not in _SHAPING:
            return operation(node)
    return ""


def operation(node: Any) -> str:
    """``LogSoftmaxBackward0`` → ``LogSoftmax``."""
    return str(node.name()).rpartition("::")[2].partition("Backward")[0]
