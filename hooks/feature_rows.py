"""From whatever a model takes and gives to a few columns of numbers, one row per item of the batch.

Every function here returns views or small new tensors; nothing is kept. Large tensors are thinned by
strides, never by random choice: the job's random state is not ours to touch.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

COLUMNS = 64
"""Columns kept one by one; a wider input is averaged over this many neighbouring groups."""
ROWS = 64
"""Rows kept of one request: 16 requests then give a mean within 3 % of a standard deviation."""
CELLS = 1 << 14
"""Numbers copied per request and tensor at most, so that a batch of images costs what a small table costs."""
POSITIONS = 1024
"""Pixels or time steps that a mean over an image or a sequence is taken of."""
TOKENS = 256
BUCKETS = 16
INTEGER_COLUMNS = 8
"""An integer matrix up to this wide is a table of categories; a wider one is token ids."""
CHANNELS_FIRST = 16
"""``(B, C, T)`` with at most so few C and a long T is a signal by channel, not a sequence of vectors."""
DEPTH = 3
LEAVES = 8

Reduction = Literal["columns", "channels", "sequence", "last", "tokens", "ragged"]


class Leaf(NamedTuple):
    """A tensor and how a reader would write it: ``input[0]``, ``input.x``, ``output.logits``."""

    path: str
    tensor: Tensor


def leaves(value: Any, path: str, depth: int = DEPTH) -> Iterator[Leaf]:
    """The dense tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        if value.numel() and value.layout is torch.strided and not value.is_complex() and not value.is_quantized:
            yield Leaf(path, value)
    elif depth and isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}", depth - 1)
    elif depth and isinstance(value, (tuple, list)):
        for index, item in enumerate(value[:LEAVES]):
            yield from leaves(item, f"{path}[{index}]", depth - 1)


def input_leaves(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Leaf]:
    """At most ``LEAVES`` tensors of a call: ``input[0]`` by position, ``input.x`` by name."""
    return [*leaves(args, "input"), *leaves(kwargs, "input")][:LEAVES]


def output_leaves(output: Any) -> list[Leaf]:
    """At most ``LEAVES`` tensors of a result: ``output`` when it is one tensor."""
    return list(leaves(output, "output"))[:LEAVES]


def choose(tensor: Tensor, *, output: bool) -> Reduction:
    """How this kind of tensor is read."""
    if tensor.dim() <= 1:
        return "columns"
    if tensor.dim() == 2:
        is_table = tensor.is_floating_point() or tensor.shape[1] <= INTEGER_COLUMNS
        return "columns" if is_table else "tokens"
    if tensor.dim() == 3:
        if tensor.shape[1] <= CHANNELS_FIRST and tensor.shape[2] > COLUMNS and not output:
            return "channels"
        return "last" if output else "sequence"
    return "channels"


def rows_of(tensor: Tensor, reduction: Reduction) -> Tensor:
    """``(rows, columns)`` of a tensor; still on its device, at most ``ROWS`` rows."""
    return _READERS[reduction](tensor.detach())


def _thin(tensor: Tensor, limit: int) -> Tensor:
    """Every k-th row, so that at most ``limit`` are left."""
    count = tensor.shape[0]
    return tensor if count <= limit else tensor[:: -(-count // limit)]


def _columns(tensor: Tensor) -> Tensor:
    table = tensor.reshape(-1, 1) if tensor.dim() <= 1 else tensor
    return _thin(table, max(1, min(ROWS, CELLS // table.shape[1])))


def _channels(tensor: Tensor) -> Tensor:
    flat = tensor.flatten(2)
    flat = _thin(flat, max(1, min(ROWS, CELLS // (flat.shape[1] * min(flat.shape[2], POSITIONS)))))
    return flat[..., :: -(-flat.shape[2] // POSITIONS)].mean(2, dtype=torch.float32)


def _sequence(tensor: Tensor) -> Tensor:
    kept = tensor[:, :: -(-tensor.shape[1] // POSITIONS)]
    kept = _thin(kept, max(1, min(ROWS, CELLS // (kept.shape[1] * kept.shape[2]))))
    return kept.mean(1, dtype=torch.float32)


def _last(tensor: Tensor) -> Tensor:
    """The last position of ``(B, T, C)``: what a language model is asked for."""
    return _columns(tensor[:, -1])


def _tokens(tensor: Tensor) -> Tensor:
    """Length, share of the row's commonest id, and a hashed histogram, for each row of ids."""
    ids = _thin(tensor, BUCKETS)[:, :TOKENS].long()
    commonest = (ids == ids.mode(1, keepdim=True).values).float().mean(1)
    # Knuth's multiplicative hash: neighbouring ids land in different buckets.
    buckets = ((ids * 2654435761) >> 16) & (BUCKETS - 1)
    shares = torch.zeros(ids.shape[0], BUCKETS, device=ids.device)
    shares.scatter_add_(1, buckets, torch.full(ids.shape, 1.0 / ids.shape[1], device=ids.device))
    length = torch.full_like(commonest, float(tensor.shape[1]))
    return torch.cat([length[:, None], commonest[:, None], shares], dim=1)


def _ragged(tensor: Tensor) -> Tensor:
    """Length, mean and standard deviation of each row, when the width changes from request to request."""
    rows = _thin(tensor.reshape(tensor.shape[0], -1), ROWS)[:, :POSITIONS].float()
    length = torch.full((rows.shape[0],), float(tensor[0].numel()), device=rows.device)
    return torch.stack([length, rows.mean(1), rows.std(1, correction=0)], dim=1)


_READERS: dict[Reduction, Callable[[Tensor], Tensor]] = {
    "columns": _columns,
    "channels": _channels,
    "sequence": _sequence,
    "last": _last,
    "tokens": _tokens,
    "ragged": _ragged,
}


def names_of(path: str, tensor: Tensor, reduction: Reduction, width: int) -> list[str]:
    """How a reader would write each column of :func:`rows_of`, before grouping."""
    if reduction == "tokens":
        return [f"{path}.length", f"{path}.commonest", *(f"{path}.bucket[{k}]" for k in range(BUCKETS))]
    if reduction == "ragged":
        return [f"{path}.length", f"{path}.mean", f"{path}.std"]
    if tensor.dim() <= 1:
        return [path]
    prefix = ":,:" if reduction == "sequence" else ":"
    return [f"{path}[{prefix},{k}]" for k in range(width)]


def group_edges(width: int, groups: int) -> list[tuple[int, int]]:
    """Neighbouring columns that are averaged together; one each when there are few enough.

    >>> group_edges(3, 64), group_edges(5, 2)
    ([(0, 1), (1, 2), (2, 3)], [(0, 3), (3, 5)])
    """
    size = max(1, -(-width // groups))
    return [(start, min(start + size, width)) for start in range(0, width, size)]
