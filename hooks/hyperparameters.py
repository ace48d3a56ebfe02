"""What every replica's optimizer must be set to alike: names, plain values, and an exact digest of each."""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer


def digest_values(values: Iterable[object]) -> NDArray[np.int64]:
    """One int64 per plain value (number, string, ``None``, tuple of them): equal when their ``repr`` is.

    >>> first, second, third = digest_values([1e-3, 0.001, (0.9, 0.999)]).tolist()
    >>> first == second, first == third
    (True, False)
    """
    hashes = [hashlib.blake2b(repr(_plain(value)).encode(), digest_size=8).digest() for value in values]
    return np.frombuffer(b"".join(hashes), dtype="<i8").astype(np.int64)


def hyperparameters(
    optimizer: torch.optim.Optimizer, extra: Mapping[str, object] | None = None
) -> tuple[list[str], list[object]]:
    """Names (``0.lr``: group 0) and plain values of what every replica must set alike; ``extra`` adds, say, the scale.

    A value that is a tensor on a device is left out: to read it would wait for the device.
    """
    names, values = list(extra or {}), list((extra or {}).values())
    for index, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key != "params" and not (isinstance(value, Tensor) and value.device.type != "cpu"):
                names.append(f"{index}.{key}")
                values.append(value)
    return names, values


def endless_momentum(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a group keeps all of its velocity, which then grows for as long as gradients point one way."""
    values = (group.get("momentum", 0.0) for group in optimizer.param_groups)
    return any(isinstance(value, int | float) and value >= 1 for value in values)


def _plain(value: object) -> object:
    """``value`` so that equal numbers read alike, whatever type carries them."""
    if isinstance(value, Tensor | np.generic):
        value = value.tolist() if isinstance(value, Tensor) else value.item()
    if isinstance(value, bool | str | bytes) or value is None:
        return value
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, tuple | list):
        return tuple(_plain(entry) for entry in value)
    return type(value).__name__


def learning_rate(optimizer: Optimizer) -> torch.Tensor | float:
    """The largest rate of all groups; a tensor where one of them is."""
    rates = [group.get("lr", 0.0) for group in optimizer.param_groups]
    if any(isinstance(rate, torch.Tensor) for rate in rates):
        tensors = [rate if isinstance(rate, torch.Tensor) else torch.tensor(rate) for rate in rates]
        return torch.stack([tensor.detach().reshape(()).to(tensors[0].device) for tensor in tensors]).max()
    return float(max(rates, default=0.0))


ADAPTIVE = ("Adam", "RMSprop", "Adafactor")
"""Names of classes whose steps divide the gradient by its usual size plus ``eps``, in torch and elsewhere."""


def adaptive_epsilon(optimizer: Optimizer) -> float:
    """The largest ``eps`` of an optimizer that adapts its steps to the size of the gradient; 0 for any other.

    >>> weights = [torch.nn.Parameter(torch.ones(2))]
    >>> adaptive_epsilon(torch.optim.AdamW(weights, eps=1.0)), adaptive_epsilon(torch.optim.SGD(weights, lr=0.1))
    (1.0, 0.0)
    """
    if not any(word in type(optimizer).__name__ for word in ADAPTIVE):
        return 0.0
    found = [group.get("eps") for group in optimizer.param_groups]
    return float(max((value for value in found if isinstance(value, int | float)), default=0.0))


def resting(optimizer: Optimizer) -> frozenset[int]:
    """Places, among all its parameters, of those in groups of rate zero while another group's is not.

    They are not meant to move: a trunk that waits for its new head. A rate on a device is not waited for.

    >>> head, trunk = torch.nn.Linear(2, 1), torch.nn.Linear(2, 2)
    >>> groups = [{"params": head.parameters()}, {"params": trunk.parameters(), "lr": 0.0}]
    >>> sorted(resting(torch.optim.SGD(groups, lr=0.1)))
    [2, 3]
    """
    places, start, moving = set[int](), 0, False
    for group in optimizer.param_groups:
        rate, end = group.get("lr"), start + len(group["params"])
        known = not (isinstance(rate, torch.Tensor) and rate.device.type != "cpu")
        if known and rate is not None and float(rate) == 0.0:
            places.update(range(start, end))
        else:
            moving = True
        start = end
    return frozenset(places) if moving else frozenset()
