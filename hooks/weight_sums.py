"""One number for all parameters after a step: equal replicas have equal numbers, and it costs next to nothing.

It dates what the digests (hooks/digests.py) find every 10 to 100 steps: the sum of the bit patterns of each
tensor, weighted and folded. A sum is blind to a permutation inside one tensor, which a digest is not; but a
difference in it is a difference. On a CPU core 28 tensors of 0.3 MB take 25 µs and 47 MB take 1.8 ms.
"""

import ctypes
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torchvitals.hooks.norms import _foreach_norm, local
from torchvitals.signals.word_sums import fold, odd_weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARE = 0.002
"""Share of step time that the sums may take, a fifth of what all hooks may."""
SPARSEST = 128
"""Steps between two sums at most; digests are at most 100 apart."""
DEVICE_BYTES_PER_SECOND = 1e12
"""What a device reads: its own work is not seen by the clock of the host, and so is estimated."""
NEW_WEIGHT = 0.2
"""Of the newest measurement in a moving average: five steps to follow a change."""


class WeightSums:
    """Sums of the parameters of one optimizer.

    Ranks must sum the same steps without talking: each sums the multiples of a power of two of its own, so that
    the steps of the slowest are among those of all.

    Args:
        share: of step time that the sums may take.
    """

    def __init__(self, share: float = SHARE) -> None:
        self.every = 1
        self._share = share
        self._cost = 0.0
        self._step_seconds = 0.0
        self._last = 0.0
        self._memory: Memory | None = None
        self._readable = True

    def of(self, parameters: Sequence[Tensor], step: int) -> Tensor | float | None:
        """The number of ``step``, ``None`` when this is not one of its steps or the weights cannot be read."""
        now = time.perf_counter()
        if self._last:
            self._step_seconds = _smoothed(self._step_seconds, now - self._last)
        self._last = now
        return None if step % self.every else self.now(parameters)

    def now(self, parameters: Sequence[Tensor]) -> Tensor | float | None:
        """The number of the weights as they are; its cost counts, whoever asks."""
        began = time.thread_time()  # of this thread alone: on a busy machine a sum may be interrupted for 10 ms
        tensors = [local(parameter.detach()) for parameter in parameters]
        if not tensors:
            return None
        known = self._memory
        number = self._on_host(tensors) if tensors[0].device.type == "cpu" else _on_device(tensors)
        if self._memory is known:  # the first one, which looks for the memory, is no measure
            self._settle(time.thread_time() - began, tensors)
        return number

    def _on_host(self, tensors: Sequence[Tensor]) -> float | None:
        if self._memory is None or not self._memory.holds(tensors):
            self._readable = self._readable and all(_is_dense(tensor) for tensor in tensors)
            self._memory = Memory(tensors) if self._readable else None
        return self._memory.sum() if self._memory is not None else None

    def _settle(self, seconds: float, tensors: Sequence[Tensor]) -> None:
        """Learn what a sum costs and how far apart the next ones must be."""
        if tensors[0].device.type != "cpu":
            seconds += sum(tensor.nbytes for tensor in tensors) / DEVICE_BYTES_PER_SECOND
        self._cost = _smoothed(self._cost, seconds)
        if self._step_seconds:
            wanted = self._cost / (self._share * self._step_seconds)
            every = 1 << max(0, int(np.ceil(np.log2(max(wanted, 1.0)))))
            self.every = min(every, 2 * self.every, SPARSEST)  # one sum that took long does not end them for an epoch


class Memory:
    """The bytes of tensors by address, so that nothing of the job is kept alive; ask :meth:`holds` before each read."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._addresses = [tensor.data_ptr() for tensor in tensors]
        self._words: list[NDArray[np.int64]] = []
        self._rests: list[NDArray[np.uint8]] = []
        for tensor, address in zip(tensors, self._addresses, strict=True):
            if words := tensor.nbytes // 8:
                self._words.append(np.ctypeslib.as_array((ctypes.c_int64 * words).from_address(address)))
            if rest := tensor.nbytes % 8:
                at = address + 8 * words
                self._rests.append(np.ctypeslib.as_array((ctypes.c_uint8 * rest).from_address(at)))
        self._weights = odd_weights(len(self._words) + len(self._rests))

    def holds(self, tensors: Sequence[Tensor]) -> bool:
        """Whether ``tensors`` still lie where they lay: 70 ns each."""
        return [tensor.data_ptr() for tensor in tensors] == self._addresses

    def sum(self) -> float:
        """The weighted sum over all tensors, in 52 bits."""
        add = np.add.reduce
        sums = [add(words) for words in self._words] + [int(add(rest)) for rest in self._rests]
        return fold(int(np.dot(np.array(sums, dtype=np.int64), self._weights)))


def _is_dense(tensor: Tensor) -> bool:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    return plain and torch.ops.aten.is_non_overlapping_and_dense(tensor)


def _on_device(tensors: Sequence[Tensor]) -> Tensor | None:
    """1-norms in one launch, weighted: floats, but the same kernel on the same bits gives the same float."""
    if any(t.device != tensors[0].device or not t.is_floating_point() or t.is_meta or not t.numel() for t in tensors):
        return None
    each = _foreach_norm(list(tensors), 1) if _foreach_norm else [torch.linalg.vector_norm(t, 1) for t in tensors]
    norms = [norm.double() for norm in each]
    weights = torch.arange(1, len(norms) + 1, dtype=torch.float64, device=tensors[0].device).sqrt_()
    return torch.stack(norms).dot(weights)


def _smoothed(average: float, value: float) -> float:
    return average + NEW_WEIGHT * (value - average) if average else value
