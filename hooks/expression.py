"""The loss as autograd remembers it: which operation between the model's output and the loss went wrong?

Just before ``backward`` the graph still holds the tensors it saved. Nodes are visited in the order in which
the forward made them; the first whose saved result is not finite, or whose result worked out again from
its saved inputs is not, while those inputs are finite, is the origin.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torchvitals.hooks.births import Birth, kind_of

_MOST_NODES = 400
"""A loss expression has tens of nodes; a graph without a known model output may have millions."""
_NO_SEQUENCE = 1 << 62
"""Leaf accumulators carry the largest number there is: they belong to no place in the forward."""
_LINEAR = {"add", "sub", "rsub", "mul"}
_RESULTS = ("result", "result0", "output", "out")
_BY_THE_WAY = re.compile(r"result[1-9]")
"""Further results are intermediate values: the logarithms that CTC adds up are ``-inf`` wherever no path leads."""
_SINGULAR = {
    "sqrt", "rsqrt", "pow", "div", "log", "log2", "log10", "log1p", "acos", "asin", "acosh", "atanh", "atan2",
    "norm", "linalg_vector_norm", "std", "reciprocal", "cdist", "xlogy", "logit",
}  # fmt: skip
"""Operations whose derivative is infinite or undefined at inputs where they themselves are finite."""

Saved = dict[str, torch.Tensor]


def _one(saved: Saved, name: str) -> Any:
    return saved.get(name, 1.0)


_AGAIN: dict[str, Callable[[Saved], torch.Tensor]] = {
    "log": lambda s: s["self"].log(),
    "log2": lambda s: s["self"].log2(),
    "log10": lambda s: s["self"].log10(),
    "log1p": lambda s: s["self"].log1p(),
    "acos": lambda s: s["self"].acos(),
    "asin": lambda s: s["self"].asin(),
    "acosh": lambda s: s["self"].acosh(),
    "atanh": lambda s: s["self"].atanh(),
    "logit": lambda s: s["self"].logit(),
    "div": lambda s: _one(s, "self") / s["other"],
    "mul": lambda s: s["self"] * s["other"],
    "pow": lambda s: torch.pow(s["self"], s["exponent"]),
    "mse_loss": lambda s: torch.nn.functional.mse_loss(s["self"], s["target"], reduction="none"),
    "binary_cross_entropy": lambda s: torch.nn.functional.binary_cross_entropy(
        s["self"], s["target"], reduction="none"
    ),
}
"""Results worked out again, for operations that autograd needs only the inputs of."""
_UNSIGNED = 1 << 64
_MEAN = 1
"""What autograd's nodes call the reduction of a loss that is a mean."""


class LossExpression:
    """The nodes between the model's output and ``loss``.

    Args:
        loss: the root of backward.
        after: sequence number of the model's output; nodes made before it are the model's own.
    """

    def __init__(self, loss: torch.Tensor, after: int = -1) -> None:
        self._loss = loss
        self._nodes = _nodes(loss.grad_fn, after)

    def first_birth(self) -> Birth | None:
        """The first operation that made a non-finite value; reads saved tensors, so only before backward."""
        for node in self._nodes:
            saved, results = _saved(node)
            bad = [name for name, tensor in saved.items() if kind_of(tensor)]
            if bad:
                return self._arrived_bad(node, bad[0], saved)
            if _of_nothing(node):
                return _birth(node, {}, torch.tensor(torch.nan))
            made = results or _worked_out(node, saved)
            if any(kind_of(tensor) for tensor in made):
                return _birth(node, saved, next(tensor for tensor in made if kind_of(tensor)))
        return None

    def singular_operation(self, spoilt: Sequence[torch.Tensor] = ()) -> tuple[str, bool]:
        """An operation that can turn finite values into a non-finite gradient, and whether it is the only one.

        Works after backward, too: the nodes live as long as the loss does, only the tensors are gone. Of ``spoilt``
        parameters all must be reached from it past the model's answers, as those of a penalty on the weights are.
        """
        wanted, own = {id(parameter) for parameter in spoilt}, set(self._nodes)
        singular = [node for node in self._nodes if word(node) in _SINGULAR and not _smooth(node)]
        words = [word(node) for node in singular if not wanted or wanted <= _leaves(node, own)]
        return (words[0] if words else "", len(set(words)) == 1)

    def _arrived_bad(self, node: Any, name: str, saved: Saved) -> Birth:
        """``node`` is the first to have kept a non-finite input: who made it, or did it come from the data?"""
        tensor = saved[name]
        maker = _maker(node, name)
        if maker is None or (word(maker) in _LINEAR and any(edge is None for edge, _ in maker.next_functions)):
            birth = _birth(maker or node, {}, tensor)
            kind = kind_of(tensor)
            # finite plus finite is never NaN: the side without gradient, a target or a weight, was not finite
            if maker is None or (kind is not None and kind.nan) or _no_overflow(word(maker), tensor):
                birth.source = "batch"
            return birth
        return _birth(maker, _saved(maker)[0], tensor)


def word(node: Any) -> str:
    """The operation that made ``node``.

    >>> word((torch.ones(1, requires_grad=True) * 2).log().grad_fn)
    'log'
    """
    plain = re.sub(r"Backward\d*$", "", node.name().split("::")[-1])
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain).lower()


def _of_nothing(node: Any) -> bool:
    """Whether ``node`` is a mean over no element at all, which is 0 / 0: an empty selection, targets all ignored.

    >>> x, ignored = torch.ones(2, 3, requires_grad=True), torch.tensor([-100, -100])
    >>> losses = x[:0].mean(), x[:0].mean(1).sum(), torch.nn.functional.cross_entropy(x, ignored)
    >>> [_of_nothing(y.grad_fn) for y in losses]
    [True, False, True]
    """
    try:
        if (weight := getattr(node, "_saved_total_weight", None)) is not None:
            return getattr(node, "_saved_reduction", 0) == _MEAN and not bool(weight)
        if word(node) == "mean":
            sizes, over = node._saved_self_sym_sizes, getattr(node, "_saved_dim", None)
            # a dimension counted from behind is kept as an unsigned number
            return 0 in ([sizes[dim if dim < len(sizes) else dim - _UNSIGNED] for dim in over] if over else sizes)
        return getattr(node, "_saved_reduction", 0) == _MEAN and node._saved_self.numel() == 0
    except (AttributeError, RuntimeError):  # no such thing, or freed by an earlier backward
        return False


def _smooth(node: Any) -> bool:
    """Whether the gradient of ``node`` is finite wherever its result is: x**2 and x/constant, unlike x**0.5 and 1/x.

    >>> x = torch.ones(1, requires_grad=True)
    >>> [_smooth(y.grad_fn) for y in (x**2, x**0.5, x / 3.0, 1 / x)]
    [True, False, True, False]
    """
    if word(node) == "pow":
        exponent = getattr(node, "_saved_exponent", None)  # a number outlives backward, a tensor does not
        return isinstance(exponent, int | float) and exponent >= 1
    return word(node) == "div" and all(edge is None for edge, _ in node.next_functions[1:])


def _nodes(root: Any, after: int) -> list[Any]:
    """Nodes made after ``after`` that ``root`` was computed from, in the order of the forward."""
    found: dict[Any, int] = {}
    waiting = [root]
    while waiting and len(found) < _MOST_NODES:
        node = waiting.pop(0)
        if node is None or node in found or not after < node._sequence_nr() < _NO_SEQUENCE:
            continue
        found[node] = node._sequence_nr()
        waiting.extend(edge for edge, _ in node.next_functions)
    return sorted(found, key=found.__getitem__)


def _leaves(root: Any, own: set[Any]) -> set[int]:
    """Ids of the parameters that ``root`` was computed from by nodes of ``own`` alone."""
    found, seen, waiting = set(), {root}, [root]
    while waiting:
        for edge, _ in waiting.pop().next_functions:
            if edge is None or edge in seen:
                continue
            seen.add(edge)
            if hasattr(edge, "variable"):
                found.add(id(edge.variable))
            elif edge in own:
                waiting.append(edge)
    return found


def _saved(node: Any) -> tuple[Saved, list[torch.Tensor]]:
    """Floating tensors that ``node`` saved: its inputs by name, and its results."""
    inputs: Saved = {}
    results: list[torch.Tensor] = []
    for attribute in dir(node):
        name = attribute.removeprefix("_saved_")
        if name in (attribute, "tensors") or _BY_THE_WAY.fullmatch(name):
            continue
        try:
            value = getattr(node, attribute)
        except RuntimeError:  # freed by an earlier backward, or overwritten in place by the job
            continue
        if name == "exponent":
            inputs[name] = torch.as_tensor(value)
        elif isinstance(value, torch.Tensor) and (name == "other" or value.is_floating_point() or value.is_complex()):
            results.append(value.detach()) if name in _RESULTS else inputs.__setitem__(name, value.detach())
    return inputs, results


def _worked_out(node: Any, saved: Saved) -> list[torch.Tensor]:
    again = _AGAIN.get(word(node))
    if again is None:
        return []
    try:
        with torch.no_grad():
            return [again(saved)]
    except (KeyError, RuntimeError):  # an input was not saved: autograd did not need it
        return []


def _no_overflow(operation: str, result: torch.Tensor) -> bool:
    """Whether an infinite sum cannot be one of finite numbers: the finite ones beside it are far from the largest."""
    finite = result[result.isfinite()]
    small = finite.numel() and float(finite.abs().max()) < torch.finfo(result.dtype).max ** 0.5
    return operation != "mul" and bool(small)


def _maker(node: Any, name: str) -> Any:
    """The node whose result ``node`` took as its input ``name``; ``None`` if that carries no gradient."""
    edges = [edge for edge, _ in node.next_functions]
    position = {"other": 1, "target": 1, "exponent": 1, "weight": len(edges)}.get(name, 0)
    edge = edges[position] if position < len(edges) else None
    return None if edge is None or edge._sequence_nr() >= _NO_SEQUENCE else edge


def _birth(node: Any, saved: Saved, result: torch.Tensor) -> Birth:
    kind = kind_of(result)
    birth = Birth(f"aten.{word(node)}", kind.worst if kind else "nan", allowed=False, node=node.name())
    suspect = saved.get("other", saved.get("self", next(iter(saved.values()), None)))  # not the exponent
    birth.describe([] if suspect is None else [suspect], result)
    return birth
