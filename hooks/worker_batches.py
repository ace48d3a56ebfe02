"""Batches of a loader's workers compared: copies of one generator draw the same samples in each of them."""

import weakref
from typing import Any

import torch
from torchvitals.hooks.nested import tensors

MOST_BATCHES = 64
ROUNDS = 8
"""Batches of each worker that are looked at."""
SAMPLE = 256
"""Elements of a batch that are compared: two batches of real data differ in them."""


class WorkerBatches:
    """Looks at the first batches of each loader that has workers. They come from the workers in turn."""

    def __init__(self) -> None:
        self._iterator: weakref.ref[Any] | None = None
        self._seen: list[bytes] = []

    def loaded(self, iterator: Any, batch: Any) -> dict[str, int] | None:
        """``iterator`` gave ``batch``; the answer tells of workers whose batches are the same."""
        workers = int(getattr(iterator, "_num_workers", 0))
        if workers < 2:
            return None
        if self._iterator is None or self._iterator() is not iterator:
            self._iterator, self._seen = weakref.ref(iterator), []
        wanted = min(MOST_BATCHES // workers, ROUNDS) * workers
        if len(self._seen) >= wanted:
            return None
        tensor = next(tensors(batch), None)
        if tensor is None or tensor.device.type != "cpu" or tensor.layout is not torch.strided:
            return None
        self._seen.append(sample_of(tensor))
        return cloned(self._seen, workers) if len(self._seen) == wanted else None


def cloned(batches: list[bytes], workers: int, most: float = 0.9, rounds: int = 3) -> dict[str, int] | None:
    """Whether the batches of each round are one and the same in ``most`` cases, and differ between rounds.

    Data that is constant, as of a synthetic benchmark, is no fault; nor are a few equal batches.

    >>> cloned([b"a", b"a", b"b", b"b", b"c", b"c"], 2)
    {'workers': 2, 'batches': 6, 'distinct': 3}
    >>> cloned([b"a"] * 6, 2), cloned([b"a", b"b", b"c", b"d", b"e", b"f"], 2)
    (None, None)
    """
    turns = [batches[start : start + workers] for start in range(0, len(batches), workers)]
    repeats = sum(len(turn) - len(set(turn)) for turn in turns)
    distinct = len(set(batches))
    if repeats < most * (len(batches) - len(turns)) or distinct < min(rounds, len(turns)):
        return None
    return {"workers": workers, "batches": len(batches), "distinct": distinct}


def sample_of(tensor: torch.Tensor) -> bytes:
    """A few elements of ``tensor``, evenly spaced: equal where it is."""
    flat = tensor.detach().flatten()
    chosen = flat[:: max(1, len(flat) // SAMPLE)].contiguous()
    return bytes(chosen.view(torch.uint8).numpy()) if chosen.numel() else b""
