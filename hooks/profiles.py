"""What each parameter feels at a sampled step: gradient, weight, update, and rows that get no gradient.

Read in the optimizer's step hooks, where the gradient is the one about to be applied. Everything is reduced
on the device and copied to the host once. What was not measured is :data:`ABSENT` (no quantity here is negative).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvitals.hooks.norms import local as dense
from torchvitals.hooks.norms import norms
from torchvitals.hooks.silence import Silence
from torchvitals.signals.records import ABSENT

# A row of these is not a unit: an unused token is not a dead one, and transposed convolutions keep units in dim 1.
ROWS_ARE_NOT_UNITS = ("Embedding", "Transpose", "PReLU", "LSTM", "GRU", "RNN", "Bilinear")
ROWS_ARE_UNITS = ("Linear", "Conv", "Norm", "Conv1D")


_foreach_sub = getattr(torch, "_foreach_sub_", None)


class Layer(NamedTuple):
    """Parameters with one row per unit: the index of the weight, of the bias (or ``None``), and the rows."""

    weight: int
    bias: int | None
    rows: int


class GradientProfile:
    """Norms and silent rows of a list of parameters, at the steps it is asked to look.

    Args:
        names: of the parameters, dotted as in ``named_parameters``; aliases joined by `` = ``.
        parameters: what one optimizer holds; frozen ones are :data:`ABSENT` throughout, and
            what has no gradient has no gradient norm and no update.
        kinds: parameter name → class name of the owning module, to know whose rows are units.
        copied: weights are copied to measure the update up to this many elements per sampled step; a larger
            model is looked at in turns. 4 Mi elements are 16 MiB and about 2 ms on a CPU core.
    """

    def __init__(
        self,
        names: Sequence[str],
        parameters: Iterable[Tensor],
        kinds: Mapping[str, str] | None = None,
        copied: int = 1 << 22,
    ) -> None:
        self.names = list(names)
        self._parameters = list(parameters)
        self._layers = layers(self.names, self._parameters, kinds or {})
        self._silence = Silence(layer.rows for layer in self._layers)
        self._copied = copied
        self._turn = 0
        self._rows = np.full(len(self.names), ABSENT)
        for layer in self._layers:
            self._rows[layer.weight] = layer.rows
        self._present: list[int] = []
        self._watched: list[int] = []
        self._gradient_norms: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._spoke: list[Tensor] = []
        self._known = np.zeros(len(self._layers), dtype=bool)

    def before(
        self, scale: Tensor | float | None = None, *, applied: bool = False, resting: Collection[int] = ()
    ) -> dict[str, NDArray[np.float64]]:
        """In the step pre-hook: reduce the gradients (divided by ``scale``) and copy the weights to watch.

        A step with a closure is read after it was ``applied``: then the updates are absent, not zero. So are those of
        the parameters that are ``resting``, which the step is not meant to move.

        Returns what is known without waiting for the device: the rows. The rest comes from :meth:`after`.
        """
        gradients = [local(parameter.grad) for parameter in self._parameters]
        found = {i: gradient for i, gradient in enumerate(gradients) if gradient is not None and gradient.numel()}
        present = list(found)
        self._present = present
        self._gradient_norms = norms(list(found.values()))
        if scale is not None:
            self._gradient_norms = [norm / scale for norm in self._gradient_norms]
        self._spoke, self._known = self._active_rows(gradients)
        self._watched = [] if applied else self._next_turn([i for i in present if i not in resting])
        self._copies = [values(self._parameters[i]).clone() for i in self._watched]
        return {"parameter_rows": self._rows.copy()}

    def after(self) -> dict[str, NDArray[np.float64]]:
        """In the step post-hook: signal → one float per parameter. Waits for the device once."""
        whole = [i for i, p in enumerate(self._parameters) if p.requires_grad and values(p).numel()]
        weight_norms = norms([values(self._parameters[i]) for i in whole])
        if self._copies:
            news = [values(self._parameters[i]) for i in self._watched]
            subtract(self._copies, news)
        groups = (self._present, whole, self._watched)
        numbers = to_host([*self._gradient_norms, *weight_norms, *norms(self._copies)], self._spoke)
        answer = self._norm_signals(groups, numbers[0])
        answer.update(self._row_signals(numbers[1]))
        answer["parameter_nonfinite"] = self._nonfinite(answer["parameter_gradient_norm"])
        self._forget()
        return answer

    def _forget(self) -> None:
        """Keep nothing of the job between sampled steps."""
        self._present, self._watched = [], []
        self._gradient_norms, self._copies, self._spoke = [], [], []

    def _next_turn(self, present: list[int]) -> list[int]:
        """The parameters whose update is measured now: as many as the allowance holds, the next ones next time.

        A single tensor larger than the whole allowance is never copied.
        """
        sizes = {i: values(self._parameters[i]).numel() for i in present}
        order = [i for i in present if sizes[i] <= self._copied]
        if not order:
            return []
        start = self._turn % len(order)
        chosen, room = [], self._copied
        for index in order[start:] + order[:start]:
            room -= sizes[index]
            if room < 0:
                break
            chosen.append(index)
        self._turn = start + len(chosen)
        return sorted(chosen)

    def _active_rows(self, gradients: Sequence[Tensor | None]) -> tuple[list[Tensor], NDArray[np.bool_]]:
        """For each layer the largest absolute gradient of each row, weight and bias together."""
        spoke, known = [], np.zeros(len(self._layers), dtype=bool)
        for number, layer in enumerate(self._layers):
            parts = [gradients[i] for i in (layer.weight, layer.bias) if i is not None]
            rows = [row_absmax(part) for part in parts if part is not None and len(part) == layer.rows]
            if rows:
                known[number] = True
                spoke.append(torch.stack(rows).amax(0) if len(rows) > 1 else rows[0])
        return spoke, known

    def _norm_signals(
        self, groups: tuple[list[int], list[int], list[int]], numbers: NDArray[np.float64]
    ) -> dict[str, NDArray[np.float64]]:
        answer, start = {}, 0
        names = ("parameter_gradient_norm", "parameter_weight_norm", "parameter_update_norm")
        for name, indices in zip(names, groups, strict=True):
            answer[name] = np.full(len(self.names), ABSENT)
            answer[name][indices] = numbers[start : start + len(indices)]
            start += len(indices)
        return answer

    def _row_signals(self, row_absmax: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        sizes = self._silence.sizes
        active = np.zeros(int(sizes.sum()), dtype=bool)
        active[np.repeat(self._known, sizes)] = row_absmax != 0  # NaN is no silence
        zero, silent = np.full(len(self.names), ABSENT), np.full(len(self.names), ABSENT)
        if len(self._layers):
            weights = [layer.weight for layer in self._layers]
            starts = np.cumsum(sizes) - sizes
            zero_share = np.add.reduceat((~active).astype(np.float64), starts) / sizes
            zero[weights] = np.where(self._known, zero_share, ABSENT)
            silent[weights] = self._silence.update(active, self._known & telling(zero_share >= 1.0, self._known))
        return {"parameter_zero_rows": zero, "parameter_silent_rows": silent}

    def _nonfinite(self, gradient_norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """An infinite norm may be an overflow of squares, so only the elements of a suspicious tensor decide."""
        flags = np.where(gradient_norms == ABSENT, ABSENT, 0.0)
        for index in np.flatnonzero(~np.isfinite(gradient_norms)):
            gradient = local(self._parameters[index].grad)
            flags[index] = float(gradient is None or not bool(torch.isfinite(gradient).all()))
        return flags


def telling(mute: NDArray[np.bool_], known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which layers this sample tells something of: those at which a gradient arrived from the layers behind.

    ``mute`` layers got no gradient at all. Of a run of them only the last can be the one that blocks, and only
    when the run begins at the input: mute layers amid others are a branch that was not used (an idle expert, a
    head without a loss). When the last layer is mute, the loss was content with the batch.

    >>> telling(np.array([True, True, False, True, True, False, True, False, True]), np.ones(9, dtype=bool)).astype(int)
    array([0, 1, 1, 0, 0, 1, 1, 1, 0])
    """
    answer = known.copy()
    order = np.flatnonzero(known)
    start = 0
    while start < len(order):
        end = start
        while end < len(order) and mute[order[end]]:
            end += 1
        if end == len(order) or end - start > 1:
            answer[order[start:end]] = False
            answer[order[end - 1 : end]] = start == 0 and end < len(order)
        start = end + 1
    return answer


def update_share(measured: Mapping[str, NDArray[np.float64]]) -> float | None:
    """The largest update of a layer relative to its weights, of those whose rows are units if there are any.

    A bias that began at zero is replaced by any step, and tells nothing. ``None`` where no update was measured.

    >>> rows, weights, updates = np.array([8.0, ABSENT]), np.array([2.0, 1e-9]), np.array([1e-3, 1e-3])
    >>> update_share({"parameter_rows": rows, "parameter_weight_norm": weights, "parameter_update_norm": updates})
    0.0005
    """
    update, weight, rows = (measured[f"parameter_{name}"] for name in ("update_norm", "weight_norm", "rows"))
    known = (update >= 0) & (weight > 0) & np.isfinite(update) & np.isfinite(weight)
    units = known & (rows > 0)
    chosen = units if units.any() else known
    return float((update[chosen] / weight[chosen]).max()) if chosen.any() else None


def layers(names: Sequence[str], parameters: Sequence[Tensor], kinds: Mapping[str, str]) -> list[Layer]:
    """The weights whose rows are units of a layer, each with its bias.

    Known by the class of the owner, or, for a class nobody has heard of, by a bias with as many entries as
    the weight has rows. Embeddings, lone vectors and bare parameters are left out.
    """
    biases = {owner(name): i for i, name in enumerate(names) if leaf(name) == "bias"}
    found = []
    for index, (name, parameter) in enumerate(zip(names, parameters, strict=True)):
        if not leaf(name).startswith(("weight", "original")) or leaf(name).startswith(("weight_ih", "weight_hh")):
            continue
        kind, weight = kinds.get(name, ""), values(parameter)
        bias = biases.get(owner(name))
        if bias is not None and values(parameters[bias]).shape != weight.shape[:1]:
            bias = None
        if weight.dim() < 1 or not weight.numel() or any(word in kind for word in ROWS_ARE_NOT_UNITS):
            continue
        if bias is not None or any(word in kind for word in ROWS_ARE_UNITS):
            found.append(Layer(index, bias, len(weight)))
    return found


def owner(name: str) -> str:
    """The dotted path of the module that owns a parameter; a tied parameter belongs to its first name.

    >>> owner("encoder.fc.weight = head.weight"), owner("fc.parametrizations.weight.original0")
    ('encoder.fc', 'fc')
    """
    path = name.split(" = ", maxsplit=1)[0].replace(".parametrizations.weight", "")
    return path.rpartition(".")[0]


def leaf(name: str) -> str:
    """The last part of a parameter's name: ``weight``, ``bias``, ``original0``."""
    return name.split(" = ", maxsplit=1)[0].rpartition(".")[2]


def values(parameter: Tensor) -> Tensor:
    """The parameter's own data, this rank's shard of it when it is sharded (a norm is then the shard's)."""
    data = parameter.detach()
    shard: Any = getattr(data, "to_local", None)
    return shard() if shard is not None else data


def local(gradient: Tensor | None) -> Tensor | None:
    """A gradient as one dense local tensor: shards are local, sparse ones give their values."""
    return dense(gradient.detach()) if gradient is not None else None


def subtract(minuends: list[Tensor], subtrahends: list[Tensor]) -> None:
    """Take ``subtrahends`` off ``minuends`` in place, in one launch where torch has the function."""
    if _foreach_sub is not None:
        _foreach_sub(minuends, subtrahends)
        return
    for minuend, subtrahend in zip(minuends, subtrahends, strict=True):
        minuend.sub_(subtrahend)


def row_absmax(gradient: Tensor) -> Tensor:
    """The largest absolute entry of each row: exact where a sum of squares would underflow to zero."""
    if gradient.dim() == 1:
        return gradient.abs().float()
    return gradient.flatten(1).abs().amax(1).float()  # 109 us for 786 k entries; vector_norm(inf) takes 2115


def to_host(scalars: Sequence[Tensor], vectors: Sequence[Tensor]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Many 0-d tensors and vectors as two arrays, by one copy per device."""
    parts = [scalar.reshape(1).float() for scalar in scalars] + list(vectors)
    devices = {part.device for part in parts}
    arrays: dict[int, NDArray[np.float64]] = {}
    for device in devices:
        chosen = [i for i, part in enumerate(parts) if part.device == device]
        flat = torch.cat([parts[i] for i in chosen]).double().cpu().numpy()
        pieces = np.split(flat, np.cumsum([len(parts[i]) for i in chosen])[:-1])
        arrays.update(zip(chosen, pieces, strict=True))
    ordered = [arrays[i] for i in range(len(parts))]
    empty = np.empty(0)
    count = len(scalars)
    return np.concatenate([*ordered[:count], empty]), np.concatenate([*ordered[count:], empty])
