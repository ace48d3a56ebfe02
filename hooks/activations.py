"""What each leaf module puts out at a sampled step: size, spread, zeros, silent units, saturation.

The forward hooks exist only between ``install`` and ``remove``: an unsampled step runs without any. Everything
is reduced inside the hook, because an in-place activation may overwrite the output before anybody else reads it.
Functional activations (``F.relu``) are not modules: their dead units show as silent gradient rows instead
(see :mod:`torchvitals.hooks.profiles`).
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module
from torchvitals.hooks.flatness import FLATNESS
from torchvitals.hooks.fuse import Fuse
from torchvitals.hooks.graph_task import inside_backward
from torchvitals.hooks.silence import Silence
from torchvitals.hooks.tracing import unreal
from torchvitals.signals.records import ABSENT

# Modules whose exact zeros mean that a unit is off; a dropped or padded zero means nothing.
RECTIFIERS = ("ReLU", "ReLU6", "Threshold")
CHANNELS_FIRST = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm")
FEWEST_UNITS = 8  # of a rectifier that is judged: all four units of a squeeze layer may be off in a healthy net
CALLS_PER_MODULE = 8  # a module called more often in one forward is a recurrent cell, whose later calls repeat it
ELEMENTS_READ = 1 << 20  # of each output; whole samples are left out beyond: about 1 ms per statistic on a CPU core
STATISTICS = ("module_output_absmax", "module_output_std", "module_zero_share", "module_saturated_share")


class ActivationProfile:
    """Statistics of the leaf modules of ``model`` over one forward between ``install`` and ``remove``.

    ``reason`` says why nothing can be seen; empty when all is well. Entries are module names in order of
    their first call, ``relu#1`` being the second call of a shared module; they only ever grow at the end.
    Keep one profile per model for the whole run: it remembers which units used to speak.

    Args:
        model: the module whose forward is measured; wrappers of DDP and FSDP are fine.
        fuse: ends the measuring at its first error, so that nothing escapes into the job's forward.
    """

    def __init__(self, model: Module, fuse: Fuse | None = None) -> None:
        self.reason = unseen(model)
        self.entries: list[str] = []
        self._leaves = [] if self.reason else leaves(model)
        self._sheet = Sheet()
        self._look = fuse.guard("activations", self._sheet.look) if fuse else self._sheet.look
        self._handles: list[Any] = []
        self._indices: dict[tuple[str, int], int] = {}
        self._silence = Silence()
        self._segments: dict[int, int] = {}

    def install(self) -> None:
        """Put the hooks on; a second call does nothing."""
        if not self._handles:
            self._sheet.take()
            self._handles += [module.register_forward_hook(LeafHook(name, self._look)) for name, module in self._leaves]

    def remove(self) -> None:
        """Take all hooks off again."""
        while self._handles:
            self._handles.pop().remove()

    @property
    def called(self) -> set[str]:
        """Names of the modules that have ever been called while the hooks were there."""
        return {name for name, _ in self._indices}

    @property
    def seconds(self) -> float:
        """What the hooks have cost since ``install``; read it before ``collect``."""
        return self._sheet.seconds

    def collect(self, output: Any = None) -> tuple[list[str], dict[str, NDArray[np.float64]]]:
        """What the hooks saw since ``install``: entries, and per signal one float each. Waits for the device once.

        Entries that were not called this time hold :data:`ABSENT`; both are empty when nothing was seen.
        ``output`` is what the model returned: a module whose output is part of it may well be saturated,
        as a classifier that is certain is, and so that is not measured.
        """
        calls = self._sheet.take()
        if not calls:
            return [], {}
        answer_pointers = {tensor.data_ptr() for tensor in tensors(output)}
        rows = [self._index(call) for call in calls]
        answer = {name: np.full(len(self.entries), ABSENT) for name in (*STATISTICS, "module_silent_units")}
        for row, call, numbers in zip(rows, calls, to_host([call.numbers for call in calls]), strict=True):
            for name, value in zip(STATISTICS, numbers, strict=True):
                answer[name][row] = value
            if call.pointer in answer_pointers:
                answer["module_saturated_share"][row] = ABSENT
        speaking = [(row, call.units) for row, call in zip(rows, calls, strict=True) if call.units is not None]
        heard = to_host([units for _, units in speaking])
        self._hear(answer["module_silent_units"], {row: units for (row, _), units in zip(speaking, heard, strict=True)})
        return list(self.entries), answer

    def _index(self, call: "Call") -> int:
        key = (call.name, call.number)
        if key not in self._indices:
            self._indices[key] = len(self.entries)
            self.entries.append(f"{call.name}#{call.number}" if call.number else call.name)
        return self._indices[key]

    def _hear(self, share: NDArray[np.float64], heard: dict[int, NDArray[np.float64]]) -> None:
        """Tell the silence of the units heard now; a layer that changes its width is not judged."""
        for row, units in heard.items():
            if row not in self._segments:
                self._segments[row] = len(self._segments)
                self._silence.grow([len(units)])
        sizes = self._silence.sizes
        starts = np.cumsum(sizes) - sizes
        active = np.zeros(int(sizes.sum()), dtype=bool)
        known = np.zeros(len(sizes), dtype=bool)
        for row, units in heard.items():
            segment = self._segments[row]
            known[segment] = len(units) == sizes[segment]
            if known[segment]:
                active[starts[segment] : starts[segment] + len(units)] = units != 0
        silent = self._silence.update(active, known)
        for row, segment in self._segments.items():
            share[row] = silent[segment]


class Call(NamedTuple):
    """The reduced output of one module call: device tensors of a few numbers, and nothing of the job."""

    name: str
    number: int
    numbers: Tensor
    units: Tensor | None
    pointer: int
    """Address of the output, to recognise it in what the model returns."""


class Sheet:
    """Where the hooks of one forward write."""

    __slots__ = ("calls", "channels_first", "counts", "seconds")

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.counts: dict[str, int] = {}
        self.channels_first = False
        """Whether the last weights met were those of a convolution or its norm."""
        self.seconds = 0.0
        """What looking has cost inside the job's forward."""

    def look(self, name: str, module: Module, output: Any) -> None:
        """Reduce the first floating tensor of a module's output; further ones are states."""
        tensor = next(tensors(output), None)
        number = self.counts.get(name, 0)
        if tensor is None or number >= CALLS_PER_MODULE or inside_backward():
            return
        began = time.perf_counter()
        self.counts[name] = number + 1
        kind = type(module).__name__
        if kind.startswith(("Linear", *CHANNELS_FIRST)):
            self.channels_first = not kind.startswith("Linear")
        numbers, units = reduce(module, kind, tensor.detach(), self.channels_first)
        self.calls.append(Call(name, number, numbers, units, tensor.data_ptr()))
        self.seconds += time.perf_counter() - began

    def take(self) -> list[Call]:
        """What was written; the sheet is blank again."""
        calls = self.calls
        self.__init__()  # type: ignore[misc]
        return calls


class LeafHook:
    """A forward hook. It returns ``None``, for anything else would replace the module's output.

    A deep copy's hook does nothing, and a pickled model carries a harmless standard-library callable.
    """

    __slots__ = ("_look", "_name")

    def __init__(self, name: str, look: Callable[[str, Module, Any], None] | None) -> None:
        self._name = name
        self._look = look

    def __call__(self, module: Module, _inputs: Any, output: Any) -> None:
        if self._look is not None and not unreal():
            self._look(self._name, module, output)

    def __deepcopy__(self, memo: dict[int, Any]) -> "LeafHook":
        return LeafHook(self._name, None)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


@torch.no_grad()
def reduce(module: Module, kind: str, output: Tensor, channels_first: bool) -> tuple[Tensor, Tensor | None]:
    """The :data:`STATISTICS` of an output and, of a rectifier, the largest magnitude of each unit (else ``None``)."""
    output = whole_samples(output).float()
    magnitude = output.abs()
    units = magnitude.amax(other_dims(output.dim(), channels_first)) if output.dim() > 1 else magnitude
    zeros = 1.0 - torch.count_nonzero(output) / output.numel()
    flat = FLATNESS[kind](module, output).float().mean() if kind in FLATNESS else output.new_tensor(ABSENT)
    spread = output.std(correction=0)
    judged = kind in RECTIFIERS and units.numel() >= FEWEST_UNITS
    return torch.stack([units.max(), spread, zeros, flat]), units.reshape(-1) if judged else None


def other_dims(dims: int, channels_first: bool) -> list[int]:
    """All dimensions but that of the units: dim 1 of images and of what follows a convolution, else the last."""
    unit = 1 if dims >= 4 or (dims == 3 and channels_first) else dims - 1
    return [dim for dim in range(dims) if dim != unit]


def whole_samples(output: Tensor) -> Tensor:
    """Every k-th sample of the batch, so that at most about :data:`ELEMENTS_READ` elements are read."""
    stride = -(-output.numel() // ELEMENTS_READ)
    return output[::stride] if stride > 1 and output.dim() > 1 else output


def tensors(output: Any) -> Iterator[Tensor]:
    """The dense floating tensors in a module's output, whatever it is packed in."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.layout is torch.strided and output.numel() and not output.is_meta:
            shard: Any = getattr(output, "to_local", None)
            yield shard() if shard is not None else output
    elif isinstance(output, dict):
        for value in output.values():
            yield from tensors(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from tensors(value)


def leaves(model: Module) -> list[tuple[str, Module]]:
    """Modules without children, under the first of their names."""
    return [(name, module) for name, module in model.named_modules() if name and not module._modules]


def unseen(model: Module) -> str:
    """Why forward hooks on ``model`` would see nothing or do harm; empty when they are fine."""
    if isinstance(model, torch.jit.ScriptModule):
        return "the model is a ScriptModule, which runs no Python hooks inside"
    if is_compiled(model):
        return "the model is compiled: hooks would make torch.compile trace it again"
    if any(is_compiled(module) for module in model.modules()):
        return "a part of the model is compiled: hooks would make torch.compile trace it again"
    if not any(module._modules for module in model.modules()):
        return "the model is a single module"
    return ""


def is_compiled(module: Module) -> bool:
    """Whether ``module`` is the wrapper of ``torch.compile``, or was compiled in place."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def to_host(parts: list[Tensor]) -> list[NDArray[np.float64]]:
    """The vectors as arrays, by one copy per device."""
    answer: list[NDArray[np.float64]] = [np.empty(0)] * len(parts)
    for device in {part.device for part in parts}:
        chosen = [i for i, part in enumerate(parts) if part.device == device]
        flat = torch.cat([parts[i] for i in chosen]).double().cpu().numpy()
        pieces = np.split(flat, np.cumsum([len(parts[i]) for i in chosen])[:-1])
        for index, piece in zip(chosen, pieces, strict=True):
            answer[index] = piece
    return answer
