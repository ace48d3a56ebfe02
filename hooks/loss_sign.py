"""Which way a loss is minimised: read off its graph, is less of it more of what cannot be below zero?"""

from collections import deque
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.loss_graph import MOST_NODES, SUMMING, before_shaping, operation

_ROUNDING = 0.01
"""Of shares in half precision."""
_JOINING = ("Add", "Sub", "Stack")
_NEVER_POSITIVE = ("LogSoftmax", "LogSigmoid")
_NEVER_NEGATIVE = {
    "MseLoss": "mse_loss", "SmoothL1Loss": "smooth_l1_loss", "HuberLoss": "huber_loss",
    "BinaryCrossEntropy": "binary_cross_entropy", "BinaryCrossEntropyWithLogits": "binary_cross_entropy_with_logits",
}  # fmt: skip
"""Node of a loss that cannot be below zero → how a job spells it."""
_PICKING = ("Gather", "Index", "IndexSelect", "Select", "Slice", "Take")
"""How log-probabilities of the labels are taken out of all. Weighted ones may be those of actions, by their returns."""
_POSITIVE = ("Exp", "Softplus", "Pow", "Sqrt", "Sigmoid")
"""What a variance is made by."""
Edge = tuple[Any, int]


class _Sum(NamedTuple):
    """The terms that a loss adds up, as far as they are known."""

    signed: list[tuple[int, str]]
    """What cannot be below zero, and whether more of it is more of the loss."""
    other: list[Edge]
    """Anything else."""
    scaled: bool
    """Whether a squared error among them is divided by a variance that is learnt."""


def turned(loss: torch.Tensor) -> tuple[int, str] | None:
    """Whether less of ``loss`` is more (-1) or less (1) of losses that cannot be below zero, and which one is first.

    ``None`` where it is made of others, or of both: a game, a bound, a policy weighted by its returns. Sums, means,
    numbers that are known and minus signs are read; whatever else meets the loss on its way leaves nothing certain.

    >>> error = torch.nn.functional.mse_loss(torch.ones(2, requires_grad=True), torch.zeros(2))
    >>> turned(error / 4), turned(-error - error), turned(error - 2 * error)
    ((1, 'mse_loss'), (-1, 'mse_loss'), None)
    """
    terms = _terms(loss)
    if terms is None or not terms.signed or len({sign for sign, _ in terms.signed}) > 1:
        return None
    if terms.other and not (terms.scaled and all(_scale(edge, loss) for edge in terms.other)):
        return None
    return terms.signed[0]


def _terms(loss: torch.Tensor) -> _Sum | None:
    """``None`` where the loss is no sum, or one of too many terms."""
    signed: list[tuple[int, str]] = []
    other: list[Edge] = []
    scaled, seen = False, 0
    waiting: deque[tuple[Edge, int, bool]] = deque([((loss.grad_fn, 0), 1, False)])
    while waiting:
        (node, place), sign, weighted = waiting.popleft()
        seen += 1
        if node is None or seen > MOST_NODES:
            return None
        weighted |= operation(node) == "Mul"
        factor = int(not weighted) if operation(node) in _PICKING else _sign(node)
        parts = [
            (edge, -1 if at and operation(node) == "Sub" else 1)
            for at, edge in enumerate(node.next_functions)
            if edge[0]
        ]
        if function := _never_negative(node):
            signed.append((sign, function))
        elif function := _never_positive(node):
            signed.append((-sign, function))
        elif own := _weighted_square(node):
            signed.append((sign * own, "pow"))
            scaled = True
        elif factor and parts and (len(parts) == 1 or operation(node) in _JOINING):
            waiting.extend((edge, sign * factor * own, weighted) for edge, own in parts)
        else:
            other.append((node, place))
    return _Sum(signed, other, scaled)


def _weighted_square(node: Any) -> int:
    """The sign of a squared error over a learnt variance, as in the likelihood of a Gaussian; 0 if it is none."""
    learnt = [edge[0] for edge in node.next_functions if edge[0] is not None]
    if operation(node) not in ("Div", "Mul") or len(learnt) != 2:
        return 0
    error, variance = learnt if operation(node) == "Div" or _square(learnt[0]) else learnt[::-1]
    return _square(error) if _positive(variance) else 0


def _square(node: Any, depth: int = 4) -> int:
    """1 for a squared difference, -1 for its negative, 0 for anything else."""
    if _never_negative(node) in ("pow", "mse_loss"):
        return 1
    following = [edge[0] for edge in node.next_functions if edge[0] is not None]
    return _sign(node) * _square(following[0], depth - 1) if depth and len(following) == 1 else 0


def _positive(node: Any, depth: int = 4) -> bool:
    """Whether ``node`` answers a positive number, whatever it is given: a variance, or one by number."""
    if operation(node) in _POSITIVE:
        return operation(node) != "Pow" or getattr(node, "_saved_exponent", None) == 2
    following = [edge[0] for edge in node.next_functions if edge[0] is not None]
    return depth > 0 and len(following) == 1 and _sign(node) > 0 and _positive(following[0], depth - 1)


def _scale(edge: Edge, loss: torch.Tensor) -> bool:
    """Whether a term is the logarithm of a variance, or what the variance is the exponential of."""
    if operation(edge[0]) in ("Log", "Log1P"):
        return True
    seen, waiting = 0, deque[Any]([loss.grad_fn])
    while waiting and seen < MOST_NODES:
        node = waiting.popleft()
        seen += 1
        if operation(node) == "Exp" and _leads_to(node, edge):
            return True
        waiting.extend(following for following, _ in node.next_functions if following is not None)
    return False


def _leads_to(node: Any, edge: Edge, depth: int = 3) -> bool:
    """Whether ``node`` is given ``edge``, at most scaled: exp(v), exp(-v), exp(v / 2)."""
    if edge in node.next_functions:
        return True
    following = [part for part, _ in node.next_functions if part is not None and _sign(part)]
    return depth > 0 and any(_leads_to(part, edge, depth - 1) for part in following)


def _never_negative(node: Any) -> str:
    """The loss that ``node`` computes, if whatever it is given it answers zero or more."""
    word = operation(node)
    if word in ("NllLoss", "NllLoss2D"):
        return "nll_loss" if before_shaping(node) in ("LogSoftmax", "Log") else ""
    if word == "Abs" or (word == "Pow" and getattr(node, "_saved_exponent", None) == 2):
        # of a difference it is an error; a spread or a projection may well be meant to grow
        return word.lower() if before_shaping(node) == "Sub" else ""
    return _NEVER_NEGATIVE.get(word, "")


def _never_positive(node: Any) -> str:
    """The loss whose negative ``node`` computes: log-probabilities, all of them or weighted by those of the targets.

    A smoothed cross-entropy is one of the labels and one of all classes. Weights that do not sum to 1 in each row may
    be returns, which a policy is to earn more of.
    """
    if operation(node) in _NEVER_POSITIVE:
        return "cross_entropy"
    learnt = [place for place, (following, _) in enumerate(node.next_functions) if following is not None]
    if operation(node) != "Mul" or len(learnt) != 1 or before_shaping(node, learnt[0]) != "LogSoftmax":
        return ""
    targets = getattr(node, ("_saved_other", "_saved_self")[learnt[0]], None)
    if not isinstance(targets, torch.Tensor) or not targets.is_cpu or targets.dim() < 2:
        return ""
    with torch.no_grad():
        sums = targets.float().sum(dim=1)
        shares = bool((targets >= 0).all()) and bool(((sums - 1).abs() < _ROUNDING).all())
    return "cross_entropy" if shares else ""


def _sign(node: Any) -> int:
    """What ``node`` does to the sign of a loss; 0 where that is not known."""
    word = operation(node)
    if word in ("Neg", "Rsub"):
        return -1
    if word not in ("Mul", "Div"):
        return int(word in SUMMING)
    factor = getattr(node, "_saved_other", None)
    if isinstance(factor, torch.Tensor) and (factor.numel() != 1 or factor.device.type != "cpu"):
        return 0
    if not isinstance(factor, torch.Tensor | int | float):
        return 0
    return (float(factor) > 0) - (float(factor) < 0)
