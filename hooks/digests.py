"""Exact digests: one int64 per tensor, equal exactly when the bits are, as far as one int64 can say.

Construction (all on the tensor's device, int64 arithmetic that wraps, nothing read by the host):

1. The tensor's bytes as 8-byte words; left-over bytes are widened to a word each.
2. Words summed in blocks of 1023. The length is odd because a uniform change by ``c`` changes the sum by
   ``1023 c``, which is never 0 modulo 2**64; an even tail is split into an odd part and its last word.
3. Every block sum mixed bijectively, then multiplied by an odd weight hashed from its index, and summed.

The obvious version (blocks of 1024, no mixing) has the same speed and misses 70 of 392 uniform changes of
constant tensors. What this one cannot see: a permutation, or changes that cancel exactly, inside one block.
``-0.0`` and ``0.0`` differ, and so do NaN payloads: the comparison is bitwise.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvitals.signals.word_sums import fold, odd_weights

BLOCK = 1023
LARGE_WORDS = 8 * BLOCK
"""From here on a tensor is summed in place (about 10 µs of calls); smaller ones are gathered and summed together."""
BATCH_BYTES = 2 * 8 * BLOCK
"""How much of a batch is digested: its first and last 8 kB, since every step pays for it."""

_MASK_32, _MASK_35 = (1 << 32) - 1, (1 << 35) - 1
_MULTIPLIER = -0x61C8_8646_80B5_83EB  # 2**64 / golden ratio, odd, as a signed word

_flatten: Callable[[Sequence[Tensor]], Tensor] | None = getattr(torch._utils, "_flatten_dense_tensors", None)


class Part(NamedTuple):
    """The digests of the tensors of one device, on their way: ``host`` may be read once ``event`` has passed."""

    positions: list[int]
    host: Tensor
    event: Any


class Pending:
    """Digests that may still be on a device. Holds nothing of the job, only int64 results."""

    __slots__ = ("_count", "_parts")

    def __init__(self, count: int, parts: list[Part]) -> None:
        self._count = count
        self._parts = parts

    def ready(self) -> bool:
        """Whether :meth:`read` would return without waiting for a device."""
        return all(part.event is None or part.event.query() for part in self._parts)

    def read(self) -> NDArray[np.int64]:
        """The digests in the order of the tensors; waits for the device unless :meth:`ready`."""
        digests = np.zeros(self._count, dtype=np.int64)
        for part in self._parts:
            if part.event is not None:
                part.event.synchronize()
            digests[part.positions] = part.host.numpy()
        return digests


def digestible(tensor: Tensor) -> bool:
    """Whether ``tensor`` has bytes to read: dense, and not on the meta device."""
    return tensor.layout is torch.strided and tensor.device.type != "meta"


def digest(tensors: Sequence[Tensor]) -> NDArray[np.int64]:
    """One int64 per tensor; waits for a device. A DTensor's is that of its local shard.

    Raises:
        ValueError: a tensor is sparse or on the meta device (see :func:`digestible`).

    >>> ones = torch.ones(3000)
    >>> twice, again = 2 * ones, ones.clone()
    >>> found = digest([ones, twice, again])
    >>> bool(found[0] == found[2]), bool(found[0] == found[1])
    (True, False)
    """
    return start(tensors).read()


@torch.no_grad()
def start(tensors: Sequence[Tensor]) -> Pending:
    """Begin to digest; on a CUDA device the result is one small asynchronous copy, read it a step later."""
    local = [_local(tensor) for tensor in tensors]
    by_device: dict[torch.device, list[int]] = {}
    for position, tensor in enumerate(local):
        by_device.setdefault(tensor.device, []).append(position)
    parts = []
    for device, positions in by_device.items():
        digests = _digest_on(device, [local[position] for position in positions])
        parts.append(_to_host(positions, digests))
    return Pending(len(local), parts)


def _local(tensor: Tensor) -> Tensor:
    if hasattr(tensor, "to_local"):
        tensor = tensor.to_local()
    if not digestible(tensor):
        raise ValueError(f"cannot digest a {tensor.layout} tensor on {tensor.device}; ask digestible() first")
    return tensor


def _to_host(positions: list[int], digests: Tensor) -> Part:
    if digests.device.type != "cuda":
        return Part(positions, digests.cpu(), None)
    host = torch.empty(len(digests), dtype=torch.int64, pin_memory=True)
    host.copy_(digests, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(digests.device))
    return Part(positions, host, event)


def _digest_on(device: torch.device, tensors: list[Tensor]) -> Tensor:
    layout = _layout(device, tuple((tensor.nbytes, tensor.dtype) for tensor in tensors))
    blocks = [_sum_blocks(tensors[i]) for i in layout.large]
    pieces = [_gather([tensors[i] for i in bucket]) for bucket in layout.buckets]
    for i in layout.large:
        pieces += _words(tensors[i], tensors[i].nbytes // 8 // BLOCK * BLOCK)
    for i in layout.ragged:
        pieces += _words(tensors[i], 0)
    if len(layout.ends):
        running = torch.cumsum(torch.cat(pieces), 0).index_select(0, layout.ends)
        blocks.append(torch.diff(running, prepend=layout.zero))
    digests = torch.zeros(len(tensors), dtype=torch.int64, device=device)
    if not blocks:
        return digests
    mixed = _mix(torch.cat(blocks)).mul_(layout.weights)
    return digests.index_add_(0, layout.owners, mixed)


def _mix(sums: Tensor) -> Tensor:
    """A bijection of int64 that spreads high bits to low ones; works in place."""
    sums ^= (sums >> 32) & _MASK_32  # an int64 shift copies the sign: the mask makes it logical
    sums *= _MULTIPLIER
    sums ^= (sums >> 29) & _MASK_35
    return sums


def _gather(tensors: list[Tensor]) -> Tensor:
    """All words of small tensors of one dtype, one copy behind the other."""
    if len(tensors) == 1:
        return _flat(tensors[0]).view(torch.int64)
    if _flatten is not None:
        return _flatten(tensors).view(torch.int64)
    return torch.cat([tensor.reshape(-1) for tensor in tensors]).view(torch.int64)


def _flat(tensor: Tensor) -> Tensor:
    """One-dimensional, and aligned so that its bytes can be read as 8-byte words."""
    flat = tensor.contiguous().reshape(-1)
    return flat.clone() if flat.storage_offset() * flat.itemsize % 8 else flat


def _sum_blocks(tensor: Tensor) -> Tensor:
    """The sums of all whole blocks of a large tensor, without a copy."""
    flat = _flat(tensor)
    count = tensor.nbytes // 8 // BLOCK
    whole = flat[: count * BLOCK * 8 // flat.itemsize]
    return whole.view(torch.int64).view(count, BLOCK).sum(1)


def _words(tensor: Tensor, first: int) -> list[Tensor]:
    """The words from ``first`` on, then the left-over bytes as words of their own."""
    data = _flat(tensor).view(torch.uint8)
    words = data.numel() // 8
    return [data[first * 8 : words * 8].view(torch.int64), data[words * 8 :].to(torch.int64)]


class Layout(NamedTuple):
    """How a list of tensors is read: depends on sizes, types and device only, so it is computed once."""

    large: list[int]
    """Positions of tensors whose whole blocks are summed in place."""
    buckets: list[list[int]]
    """Positions of small tensors of whole words, by dtype."""
    ragged: list[int]
    """Positions of small tensors with left-over bytes."""
    ends: Tensor
    """Last word of each gathered block."""
    owners: Tensor
    """Position of the tensor each block belongs to, the blocks of large tensors first."""
    weights: Tensor
    zero: Tensor


@lru_cache(maxsize=16)
def _layout(device: torch.device, tensors: tuple[tuple[int, torch.dtype], ...]) -> Layout:
    large: list[int] = []
    ragged: list[int] = []
    buckets: dict[torch.dtype, list[int]] = {}
    for position, (nbytes, dtype) in enumerate(tensors):
        if nbytes // 8 >= LARGE_WORDS:
            large.append(position)
        elif nbytes % 8:
            ragged.append(position)
        elif nbytes:
            buckets.setdefault(dtype, []).append(position)
    gathered = [position for bucket in buckets.values() for position in bucket] + large + ragged
    owners: list[int] = []
    indices: list[int] = []
    lengths: list[int] = []
    for position in large:
        count = tensors[position][0] // 8 // BLOCK
        owners += [position] * count
        indices += range(count)
    for position in gathered:
        nbytes = tensors[position][0]
        done = nbytes // 8 // BLOCK if nbytes // 8 >= LARGE_WORDS else 0
        parts = _block_lengths(nbytes // 8 - done * BLOCK + nbytes % 8)
        owners += [position] * len(parts)
        indices += range(done, done + len(parts))
        lengths += parts
    weights = odd_weights(max(indices, default=0) + 1)[indices]
    ends = np.cumsum(np.array(lengths, dtype=np.int64)) - 1
    arrays = (
        torch.from_numpy(a).to(device) for a in (ends, np.array(owners, np.int64), weights, np.zeros(1, np.int64))
    )
    return Layout(large, list(buckets.values()), ragged, *arrays)


def _block_lengths(words: int) -> list[int]:
    """Blocks of odd length that cover ``words``.

    >>> _block_lengths(2048)
    [1023, 1023, 1, 1]
    """
    lengths = [BLOCK] * (words // BLOCK)
    tail = words % BLOCK
    if tail % 2:
        lengths.append(tail)
    elif tail:
        lengths += [tail - 1, 1]
    return lengths


_BATCH_WEIGHTS = odd_weights(BATCH_BYTES // 8 + 1)


@torch.no_grad()
def batch_piece(batch: Tensor) -> Tensor:
    """The bytes that stand for ``batch``, as uint8: all of a small one, else its first and last 8 kB."""
    batch = _local(batch)
    if batch.nbytes <= BATCH_BYTES:
        return batch.contiguous().reshape(-1).view(torch.uint8)
    half = BATCH_BYTES // 2 // batch.itemsize
    if batch.is_contiguous():
        flat = batch.view(-1)
        return torch.cat([flat[:half], flat[-half:]]).view(torch.uint8)
    rows = max(1, half * len(batch) // batch.numel())
    first, last = batch[:rows].reshape(-1)[:half], batch[-rows:].reshape(-1)[-half:]
    return torch.cat([first, last]).view(torch.uint8)


def digest_batch(batch: Tensor) -> float:
    """Digest of a batch on the CPU in 52 bits, for every step: it tells batches apart and finds equal ones.

    A weighted sum of the words of :func:`batch_piece` is enough for that. For a batch on a device use
    ``start([batch_piece(batch)])`` and :func:`fold` what has arrived; the two do not give the same number.
    """
    data = batch_piece(batch).numpy()
    if rest := len(data) % 8:
        data = np.pad(data, (0, 8 - rest))
    words = data.view(np.int64)
    return fold(int(np.dot(words, _BATCH_WEIGHTS[: len(words)])))
