"""What goes into a serving model and what comes out, as statistics of short blocks of requests.

Each request's rows are copied into memory of our own (a few microseconds; on the tensor's device, so that a
GPU is never waited for), and when a block is full the statistics are taken in one pass and cross over in
one copy. No tensor of the job is kept.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvitals.hooks import feature_rows
from torchvitals.hooks.feature_rows import COLUMNS, ROWS, Leaf, Reduction
from torchvitals.hooks.undefined import Undefined, first_undefined

BLOCK_REQUESTS = 16
"""Requests in a block: long enough that AR(1) 0.9 traffic has little correlation left between blocks."""
BLOCK_ITEMS = 512
"""A block is also full with this many items, once it holds ``LEAST_REQUESTS``: batch inference has few calls."""
LEAST_REQUESTS = 4
CLASSES = 32
"""Classes whose probability is kept one by one."""
MOST_ENTRIES = 256
INPUT, OUTPUT, SHARE = 0, 1, 2
NORMALISED = 1e-3
"""Rows that are not negative and sum to 1 within this are probabilities already, not logits."""


class FeatureBlock(NamedTuple):
    """A full block. ``values`` has one float32 entry per axis entry; entries never change places, only grow."""

    entries: list[str]
    values: dict[str, NDArray[np.float32]]
    requests: int
    items: int
    undefined: Undefined | None = None


class FeatureWindows:
    """Statistics of the inputs and outputs of one serving model, block by block.

    Args:
        model_name: for ``repr`` only; the caller names the axis.
        block_requests, block_items: when a block is full.

    >>> windows = FeatureWindows("Net", block_requests=2)
    >>> windows.observe((torch.tensor([[1.0, 0.0]]),), {}, torch.tensor([0.5]))
    >>> block = windows.observe((torch.tensor([[3.0, float("nan")]]),), {}, torch.tensor([0.7]))
    >>> block.entries
    ['input[0][:,0]', 'input[0][:,1]', 'output']
    >>> block.values["feature_mean"].round(2).tolist(), block.values["feature_missing"].tolist()
    ([2.0, 0.0, 0.6000000238418579], [0.0, 0.5, 0.0])

    """

    def __init__(
        self, model_name: str = "", *, block_requests: int = BLOCK_REQUESTS, block_items: int = BLOCK_ITEMS
    ) -> None:
        self.model_name = model_name
        self._block_requests = block_requests
        self._block_items = block_items
        self._columns: dict[str, _Columns] = {}
        self._ragged: set[str] = set()
        self._entries: dict[str, int] = {}
        self._roles: list[int] = []
        self._requests = 0
        self._items = 0

    def __repr__(self) -> str:
        return f"FeatureWindows({self.model_name!r}, {len(self._entries)} entries)"

    def observe(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> FeatureBlock | None:
        """Take one request; the block when this one filled it."""
        inputs = feature_rows.input_leaves(args, kwargs)
        for leaf in inputs:
            self._take(leaf, output=False)
        for leaf in feature_rows.output_leaves(output):
            self._take(leaf, output=True)
        self._requests += 1
        if inputs:
            first = inputs[0].tensor
            self._items += first.shape[0] if first.dim() else 1
        return self._close() if self._is_full() else None

    def _is_full(self) -> bool:
        many = self._items >= self._block_items and self._requests >= LEAST_REQUESTS
        return many or self._requests >= self._block_requests

    def _take(self, leaf: Leaf, *, output: bool) -> None:
        path, tensor = leaf
        columns = self._columns.get(path)
        if columns is None:
            columns = self._columns[path] = _Columns(path, tensor, feature_rows.choose(tensor, output=output), output)
        if columns.take(tensor, self._requests) or path in self._ragged:
            return
        self._ragged.add(path)  # the width changed: from now on only what does not depend on it
        self._columns[path] = _Columns(path, tensor, "ragged", output)
        self._columns[path].take(tensor, self._requests)

    def _close(self) -> FeatureBlock:
        undefined = first_undefined(list(self._columns.values()))
        found = [(columns, columns.drain()) for columns in self._columns.values() if columns.used]
        for columns, _ in found:
            for name in columns.entries:
                if name not in self._entries and len(self._entries) < MOST_ENTRIES:
                    self._entries[name] = len(self._entries)
                    self._roles.append(columns.role_of(name))
        values = {name: np.full(len(self._entries), np.nan, np.float32) for name in _STATISTICS}
        values["feature_rows"] = np.zeros(len(self._entries), np.float32)
        values["feature_role"] = np.asarray(self._roles, np.float32)
        for columns, rows in found:
            places = [self._entries.get(name, -1) for name in columns.entries]
            kept = [i for i, place in enumerate(places) if place >= 0]
            where = [places[i] for i in kept]
            for name, statistic in zip(_STATISTICS, _statistics(rows), strict=True):
                values[name][where] = statistic[kept]
            values["feature_rows"][where] = len(rows)
        block = FeatureBlock(list(self._entries), values, self._requests, self._items, undefined)
        self._requests = self._items = 0
        return block


class _Columns:
    """The rows of one tensor of the call, copied, until the block is full."""

    __slots__ = (
        "_buffer", "_ends", "_host", "_output", "_reduction", "_shares", "columns", "entries", "path", "reduced",
        "used",
    )  # fmt: skip

    def __init__(self, path: str, tensor: Tensor, reduction: Reduction, output: bool) -> None:
        rows = feature_rows.rows_of(tensor, reduction)
        names = feature_rows.names_of(path, tensor, reduction, rows.shape[1])
        self.path = path
        self.used = 0
        self.columns = names
        """Their names, before any are grouped."""
        self._output = output
        self._reduction = reduction
        self._ends: list[tuple[int, int]] = []
        """Request, and the row behind its last one."""
        self.reduced = reduction in ("tokens", "ragged")
        """Whether its numbers are no longer those of the tensor."""
        is_table = reduction not in ("tokens", "ragged")
        self._shares = output and is_table and tensor.is_floating_point() and rows.shape[1] > 1
        limit = CLASSES if self._shares else COLUMNS
        self.entries = _grouped_names(path, names, limit, self._shares) if is_table else names
        if self._shares:
            self.entries += [f"{path}.entropy", f"{path}.confidence"]
        room = BLOCK_REQUESTS * min(ROWS, max(1, feature_rows.CELLS // rows.shape[1]))
        with torch.inference_mode(False):  # a buffer born as an inference tensor could not be written outside
            self._buffer = torch.empty((room, rows.shape[1]), dtype=torch.float32, device=rows.device)
        self._host: NDArray[np.float32] | None = self._buffer.numpy() if rows.device.type == "cpu" else None

    def role_of(self, name: str) -> int:
        """Whether an entry is an input, an output or a share."""
        if not self.path.startswith("output"):
            return INPUT
        return SHARE if self._shares and name in self.entries else OUTPUT

    @property
    def is_answer(self) -> bool:
        """Whether NaN in it would be one in what the model has answered."""
        return self._output and not self.reduced

    def has_nan(self) -> bool:
        """Whether a request of the block had NaN; a sum tells most blocks apart, for a few microseconds."""
        kept = self._buffer[: self.used]
        return self.used > 0 and not bool(torch.isfinite(kept.sum())) and bool(kept.isnan().any())

    def requests(self) -> list[int]:
        """Those of the block that it was part of."""
        return [request for request, _ in self._ends]

    def rows(self, request: int) -> NDArray[np.float32]:
        """What was kept of one request of the block."""
        place = next((at for at, (each, _) in enumerate(self._ends) if each == request), None)
        if place is None:
            return np.zeros((0, self._buffer.shape[1]), np.float32)
        start = self._ends[place - 1][1] if place else 0
        rows: NDArray[np.float32] = self._buffer[start : self._ends[place][1]].cpu().numpy()
        return rows

    def take(self, tensor: Tensor, request: int) -> bool:
        """Copy the rows of one request; ``False`` when they no longer fit the columns."""
        rows = feature_rows.rows_of(tensor, self._reduction)
        if rows.shape[1] != self._buffer.shape[1]:
            return False
        end = min(self.used + rows.shape[0], self._buffer.shape[0])
        if self._host is not None and rows.dtype is torch.float32 and rows.device.type == "cpu":
            self._host[self.used : end] = rows.numpy()[: end - self.used]  # a third of what copy_ costs
        else:
            with torch.no_grad():
                self._buffer[self.used : end].copy_(rows[: end - self.used], non_blocking=True)
        self.used = end
        self._ends.append((request, end))
        return True

    def drain(self) -> NDArray[np.float32]:
        """``(rows, entries)`` of the block on the host; the buffer is empty afterwards."""
        rows: NDArray[np.float32] = self._buffer[: self.used].cpu().numpy()
        self.used = 0
        self._ends.clear()
        width = rows.shape[1]
        if self._shares:
            return _distribution(rows)
        edges = feature_rows.group_edges(width, COLUMNS)
        return rows if len(edges) == width else _group(rows, edges, "mean")


def _grouped_names(path: str, names: list[str], limit: int, shares: bool) -> list[str]:
    edges = feature_rows.group_edges(len(names), limit)
    places = [str(a) if b == a + 1 else f"{a}:{b}" for a, b in edges]
    if shares:
        return [f"{path}.p[{place}]" for place in places]
    return [
        names[a][: names[a].rfind(",") + 1] + f"{place}]" if len(names) > 1 or names[a].endswith("]") else names[a]
        for (a, _), place in zip(edges, places, strict=True)
    ]


def _group(rows: NDArray[np.float32], edges: list[tuple[int, int]], how: str) -> NDArray[np.float32]:
    starts = [start for start, _ in edges]
    sums: NDArray[np.float32] = np.add.reduceat(rows, starts, axis=1)
    if how == "sum":
        return sums
    means: NDArray[np.float32] = np.divide(sums, [b - a for a, b in edges], dtype=np.float32)
    return means


def _distribution(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Class probabilities (grouped), entropy as a share of its maximum, and the largest probability, by row."""
    with np.errstate(all="ignore"):
        is_normalised = bool(np.all(rows >= 0) and np.all(np.abs(rows.sum(1) - 1) < NORMALISED))
        p = rows if is_normalised else np.exp(rows - rows.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-30))).sum(1, keepdims=True) / np.log(p.shape[1])
    edges = feature_rows.group_edges(p.shape[1], CLASSES)
    grouped = p if len(edges) == p.shape[1] else _group(p, edges, "sum")
    return np.concatenate([grouped, entropy, p.max(1, keepdims=True)], axis=1).astype(np.float32)


_STATISTICS = ("feature_mean", "feature_std", "feature_missing", "feature_zero")


def _statistics(rows: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Mean and standard deviation over the finite, share of non-finite and of exact zeros, by column."""
    count = len(rows)
    mean = rows.mean(0, dtype=np.float64)
    if np.isfinite(mean).all():
        finite = np.full(rows.shape[1], count)
        centred = rows - mean
    else:
        known = np.isfinite(rows)
        finite = known.sum(0)
        with np.errstate(all="ignore"):
            mean = np.where(known, rows, 0).sum(0, dtype=np.float64) / finite
        centred = np.where(known, rows - mean, 0)
    with np.errstate(all="ignore"):
        std = np.sqrt(np.einsum("ij,ij->j", centred, centred) / finite)
    return mean, std, 1 - finite / count, (rows == 0).mean(0)
