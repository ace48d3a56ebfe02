"""The norm of what this rank holds of sharded gradients, such that the squares of all ranks add up to the whole.

Nothing is sent through the job's process groups: the agent adds. What several ranks hold alike (the replicas of
hybrid sharding, parameters left out of it) counts once between them.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torchvitals.hooks.norms import combined, local


def whole_of(parameter: Tensor, modules: Iterable[Any]) -> Tensor | None:
    """The leaf in which autograd adds up this rank's own gradient of a ``parameter`` that FSDP2 shards.

    It is filled, and freed again, in each backward; there is none before the first forward, nor under another
    wrapper. The names are private to torch; without one of them it is not found.
    """
    for module in modules:
        state = module._get_fsdp_state() if hasattr(module, "_get_fsdp_state") else None
        group = getattr(state, "_fsdp_param_group", None)
        for held in getattr(group, "fsdp_params", ()):
            if getattr(held, "sharded_param", None) is parameter:
                whole = getattr(held, "_unsharded_param", None)
                return whole if isinstance(whole, Tensor) else None
    return None


def shard_norm(parameters: Sequence[Tensor], sharing: Sequence[object] = ()) -> Tensor | None:
    """The part of this rank in the norm over the gradients of ``parameters``.

    ``None`` where there are none, or where the parts do not add up because sums are pending.

    Args:
        parameters: DTensors, or plain tensors that every rank holds.
        sharing: wrappers (DDP) around the model: ranks outside a DTensor's mesh hold the same again.
    """
    by_holders: dict[int, list[Tensor]] = {}
    for gradient in (p.grad for p in parameters if p.grad is not None):
        holders = holders_of(gradient, replicated_outside=bool(sharing))
        if not holders:
            return None
        by_holders.setdefault(holders, []).append(local(gradient))
    if not by_holders:
        return None
    with torch.no_grad():
        parts = [combined(tensors).double() / math.sqrt(holders) for holders, tensors in by_holders.items()]
        return combined(parts)


def holders_of(gradient: Any, *, replicated_outside: bool) -> int:
    """How many ranks hold the numbers that this rank holds of ``gradient``; 0 where they are only summands of it."""
    world = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    placements = getattr(gradient, "placements", None)
    if placements is None:
        return world
    mesh = gradient.device_mesh
    holders = world // mesh.size() if replicated_outside else 1
    for dimension, placement in enumerate(placements):
        if placement.is_partial():
            return 0
        if placement.is_replicate():
            holders *= mesh.size(dimension)
    return holders
