"""Which operation first made a non-finite value out of finite ones, and does that value matter?

A dispatch mode looks at every operation's result. A non-finite result of finite inputs is a *birth*; a
non-finite result of non-finite inputs inherits the birth of its inputs. So every non-finite tensor leads to
the operation it comes from, and values that end nowhere (an attention mask's ``-inf`` before the softmax)
lead to nothing. Infinities written on purpose (``masked_fill``, ``full``, ``where``, a constant ``-inf``) are
births that are *allowed*: an operation that turns them into NaN is a birth of its own.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvitals.hooks.graph_task import current_node, next_sequence_number
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.source import Line, line_of, locals_of, user_frames

_FLOATING = {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128}
_WRITES_CONSTANTS = {
    "full", "full_like", "new_full", "fill", "fill_", "masked_fill", "masked_fill_", "where", "scalar_tensor",
    "index_fill", "index_fill_", "scatter", "scatter_", "index_put", "index_put_", "constant_pad_nd", "triu", "tril",
}  # fmt: skip
_UNINITIALISED = {"empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided", "resize_"}
_OVERWRITES = {"fill_", "zero_", "copy_", "bernoulli_", "uniform_", "normal_", "random_", "exponential_"}
_COLLECTIVE = {"c10d", "_c10d_functional", "_c10d_functional_autograd"}
_DIVISORS = {"div", "div_", "true_divide", "remainder", "fmod", "atan2"}


class CollectiveError(RuntimeError):
    """The replayed code would communicate with other ranks, which are not replaying."""


@dataclass(slots=True)
class Kind:
    """Which sorts of non-finite values a tensor holds."""

    nan: bool = False
    positive: bool = False
    negative: bool = False

    @property
    def worst(self) -> str:
        """``"nan"``, ``"inf"`` or ``"-inf"``."""
        return "nan" if self.nan else "inf" if self.positive else "-inf"


@dataclass(slots=True)
class Place:
    """Where in the job's code an operation was called: module path, line, and the forward operation."""

    module: str = ""
    line: Line = field(default_factory=Line)
    operation: str = ""


@dataclass(slots=True)
class Birth:
    """One non-finite value's beginning. An empty ``operation`` means it came from outside: ``source`` says where."""

    operation: str
    value: str
    allowed: bool
    place: Place = field(default_factory=Place)
    source: str = ""
    dtype: str = ""
    backward: bool = False
    node: str = ""
    inputs: dict[str, float] = field(default_factory=dict)
    shape: tuple[int, ...] = ()
    elements: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)

    def describe(self, suspects: list[torch.Tensor], result: torch.Tensor) -> None:
        """Fill in what can be measured: the range of the first suspect, where ``result`` is not finite."""
        self.inputs = statistics(suspects[0]) if suspects else {}
        self.dtype = str(result.dtype).removeprefix("torch.")
        self.shape = tuple(result.shape)
        self.elements, self.rows = nonfinite_places(result)


def kind_of(tensor: torch.Tensor) -> Kind | None:
    """What non-finite values ``tensor`` holds, ``None`` for none (or for tensors that cannot hold any)."""
    if tensor.dtype not in _FLOATING or tensor.layout is not torch.strided or tensor.is_meta or not tensor.numel():
        return None
    if bool(torch.isfinite(tensor).all()):
        return None
    real = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return Kind(bool(torch.isnan(real).any()), bool((real == float("inf")).any()), bool((real == -float("inf")).any()))


def statistics(tensor: torch.Tensor) -> dict[str, float]:
    """``min``, ``max`` and ``absmax`` of the finite entries; counts of ``zeros`` and of ``nonfinite`` ones."""
    flat = tensor.detach().abs().double() if tensor.is_complex() else tensor.detach().double()
    finite = flat[torch.isfinite(flat)]
    counts = {"zeros": float((flat == 0).sum()), "nonfinite": float(flat.numel() - finite.numel())}
    if not finite.numel():
        return counts
    low, high = float(finite.min()), float(finite.max())
    return {"min": low, "max": high, "absmax": max(abs(low), abs(high)), **counts}


def nonfinite_places(tensor: torch.Tensor, few: int = 8) -> tuple[list[int], list[int]]:
    """Flat indices of the first ``few`` non-finite entries, and the rows (first dimension) that hold any."""
    bad = ~torch.isfinite(tensor.detach())
    elements = bad.flatten().nonzero()[:few, 0].tolist()
    if not tensor.dim():
        return elements, []
    return elements, bad.flatten(1).any(1).nonzero()[:, 0].tolist() if tensor.dim() > 1 else bad.nonzero()[
        :, 0
    ].tolist()


class Births(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's initialiser has no types
    """Collects the births of everything run inside it.

    Args:
        modules: id of a module → its path; modules not in it have no path.
        stop: the code object at which the job's stack ends for our purposes.
        deadline: ``time.monotonic()`` after which operations run unseen; ``late`` then says so.
        map_nodes: keep the place of each forward operation, so that backward operations can name it.
    """

    def __init__(self, modules: dict[int, str], stop: CodeType, deadline: float, map_nodes: bool = False) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.births: list[Birth] = []
        self.late = False
        self._modules = modules
        self._stop = stop
        self._deadline = deadline
        self._map_nodes = map_nodes
        self._taint: dict[int, int] = {}
        self._nodes: dict[int, Place] = {}

    def declare(self, source: str, found: Iterator[torch.Tensor]) -> None:
        """Say where tensors that exist before the run come from, so that what is wrong with them has a name."""
        for tensor in found:
            kind = kind_of(tensor)
            if kind is not None:
                self._from_outside(tensor, kind, source)

    def origin_of(self, result: Any) -> Birth | None:
        """The earliest birth that is not allowed behind any tensor in ``result``."""
        found = [self._taint[key] for t in tensors(result) if kind_of(t) and (key := _storage(t)) in self._taint]
        genuine = [index for index in found if not self.births[index].allowed]
        return self.births[min(genuine)] if genuine else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace in _COLLECTIVE:
            raise CollectiveError(str(func))
        if self.late or time.monotonic() > self._deadline:
            self.late = True
            return func(*args, **kwargs)
        if self._map_nodes:
            self._remember_node(func)
        inputs = _inputs(func, args, kwargs)
        result = func(*args, **kwargs)
        if func._schema.name.split("::")[1] not in _UNINITIALISED:
            for output in tensors(result):
                self._judge(func, inputs, output)
        return result

    def _judge(self, func: Any, inputs: list[tuple[int, torch.Tensor]], output: torch.Tensor) -> None:
        kind = kind_of(output)
        storage = _storage(output)
        if kind is None:
            known = any(key == storage for key, _ in inputs)
            if not known or output.numel() * output.element_size() >= output.untyped_storage().nbytes():
                self._taint.pop(storage, None)
            return
        parents = [self._parent(key, tensor, bad) for key, tensor in inputs if (bad := kind_of(tensor))]
        genuine = [index for index in parents if not self.births[index].allowed]
        if genuine:
            self._taint[storage] = min(genuine)
        elif parents and kind.worst == "-inf":
            self._taint[storage] = min(parents)
        else:
            self._taint[storage] = self._born(func, inputs, output, kind)

    def _parent(self, storage: int, tensor: torch.Tensor, kind: Kind) -> int:
        if storage not in self._taint:
            return self._from_outside(tensor, kind, "constant")
        return self._taint[storage]

    def _from_outside(self, tensor: torch.Tensor, kind: Kind, source: str) -> int:
        birth = Birth("", kind.worst, allowed=kind.worst == "-inf", source=source)
        birth.place = self._place()
        birth.describe([tensor], tensor)
        return self._add(birth, _storage(tensor))

    def _born(self, func: Any, inputs: list[tuple[int, torch.Tensor]], output: torch.Tensor, kind: Kind) -> int:
        name = func._schema.name.split("::")[1]
        allowed = name in _WRITES_CONSTANTS and not kind.nan
        birth = Birth(str(func), kind.worst, allowed=allowed)
        node = current_node()
        birth.place = self._place()
        if node is not None and not birth.place.line.file:
            birth.backward = True
            birth.node = node.name()
            birth.place = self._nodes.get(node._sequence_nr(), birth.place)
        elif node is not None and not torch.is_grad_enabled():  # the job's own backward; a checkpoint records again
            birth.backward = True
            birth.node = node.name()
        birth.describe(_suspects(name, [tensor for _, tensor in inputs]), output)
        return self._add(birth, _storage(output))

    def _add(self, birth: Birth, storage: int) -> int:
        self.births.append(birth)
        self._taint[storage] = len(self.births) - 1
        return len(self.births) - 1

    def _remember_node(self, func: Any) -> None:
        """The node of a forward operation took its sequence number just before the operation is dispatched."""
        number = next_sequence_number() - 1
        if number not in self._nodes and torch.is_grad_enabled():
            self._nodes[number] = self._place()
            self._nodes[number].operation = str(func)

    def _place(self) -> Place:
        frame = next(user_frames(sys._getframe(1), self._stop), None)
        module = next(_paths(sys._getframe(1), self._stop, self._modules), "")
        return Place(module, line_of(frame) if frame is not None else Line())


def _paths(frame: FrameType | None, stop: CodeType, modules: dict[int, str]) -> Iterator[str]:
    """Paths of the modules whose methods are running, the innermost first."""
    while frame is not None and frame.f_code is not stop:
        if frame.f_code.co_varnames[:1] == ("self",):
            path = modules.get(id(locals_of(frame).get("self")))
            if path is not None:
                yield path
        frame = frame.f_back


def _inputs(func: Any, args: Any, kwargs: Any) -> list[tuple[int, torch.Tensor]]:
    """Storage and value of each floating input; what the operation writes to is copied before, or left out."""
    name = func._schema.name.split("::")[1]
    if not func._schema.is_mutable:
        told = name in _DIVISORS  # a sum of a mask is an integer, and divides as well
        return [(_storage(t), t) for t in tensors((args, kwargs)) if told or t.dtype in _FLOATING]
    found: list[tuple[int, torch.Tensor]] = []
    names = [argument.name for argument in func._schema.arguments]
    for argument, value in [*zip(names, args, strict=False), *kwargs.items()]:
        written = _is_written(func, argument)
        if written and (name in _OVERWRITES or argument == "out"):
            continue
        floating = (tensor for tensor in tensors(value) if tensor.dtype in _FLOATING)
        found.extend((_storage(tensor), tensor.clone() if written else tensor) for tensor in floating)
    return found


def _is_written(func: Any, argument: str) -> bool:
    return any(
        a.name == argument and a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments
    )


def _suspects(name: str, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The input to blame first: the divisor of a division, else the one with the largest magnitude."""
    if not inputs:
        return []
    if name in _DIVISORS and len(inputs) > 1:
        return [inputs[1]]
    if len(inputs) == 1 or name in {"pow", "native_layer_norm", "native_batch_norm", "_softmax", "_log_softmax"}:
        return [inputs[0]]
    magnitude: Callable[[torch.Tensor], float] = lambda t: statistics(t).get("absmax", 0.0)  # noqa: E731
    return sorted(inputs, key=magnitude, reverse=True)


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr() if tensor.layout is torch.strided else id(tensor)
