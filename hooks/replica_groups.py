"""Which other ranks owe each parameter equal bits: all of them, those that hold the same shard, or none.

Said as a text for each parameter: empty for a whole copy on every rank, the shard or the ranks it is shared
with, or ``ALONE``. Nothing is asked of the other ranks: meshes and groups know where this one stands.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch.nn import Module
from torchvitals.hooks import identity
from torchvitals.hooks.discovery import Model
from torchvitals.signals.records import ALONE

OWN_PARTS = ("tensor_model_parallel", "ds_id")
"""Attributes by which Megatron marks a plain tensor that is a shard, and DeepSpeed (stage 3) one that it empties."""


def grouped() -> bool:
    """Whether this process works together with others; a sweep under torchrun has no process group."""
    return dist.is_available() and dist.is_initialized() and identity.place().world_size > 1


def replicas(parameters: Sequence[torch.Tensor], models: Iterable[Model]) -> list[str]:
    """For each of ``parameters`` which replica of it this rank holds; empty for a process that is alone."""
    if identity.place().world_size < 2:
        return []
    if not grouped():
        return [ALONE] * len(parameters)
    told = dict(_told_by_wrappers(models))
    return [_replica(parameter, told.get(id(parameter), "")) for parameter in parameters]


def _replica(parameter: torch.Tensor, group: str) -> str:
    marks = [getattr(parameter, name, None) for name in OWN_PARTS]  # the number 0 is a mark
    if group == ALONE or any(mark is not None and mark is not False for mark in marks):
        return ALONE
    shard = _shard(parameter)
    return shard if shard == ALONE else ", ".join(filter(None, (shard, group)))


def _shard(parameter: Any) -> str:
    """Where a DTensor's shard lies along the dimensions of its mesh that cut it: ``tp 1 of 2``."""
    mesh, placements = getattr(parameter, "device_mesh", None), getattr(parameter, "placements", ())
    if mesh is None:
        return ""
    coordinates = mesh.get_coordinate()
    if coordinates is None:  # not a member of the mesh: an empty shard
        return ALONE
    parts = []
    names = mesh.mesh_dim_names or [f"dimension {index}" for index in range(mesh.ndim)]
    for index, placement in enumerate(placements):
        if placement.is_partial():
            return ALONE
        if not placement.is_replicate() and mesh.size(index) > 1:
            parts.append(f"{names[index]} {coordinates[index]} of {mesh.size(index)}")
    return ", ".join(parts)


def _told_by_wrappers(models: Iterable[Model]) -> Iterator[tuple[int, str]]:
    """Parameter id → the ranks its wrapper keeps equal, where they are not all; what a wrapper leaves out is alone."""
    for model in models:
        for module in model.outer.modules():
            if type(module).__name__ == "DistributedDataParallel":
                yield from _shared_by(module)
            elif type(module).__name__ == "FullyShardedDataParallel":  # its first version hands out views of shards
                yield from ((id(parameter), ALONE) for parameter in module.parameters())


def _shared_by(wrapper: Module) -> Iterator[tuple[int, str]]:
    group = _ranks(getattr(wrapper, "process_group", None))
    left_out = getattr(wrapper, "parameters_to_ignore", None) or ()
    for name, parameter in wrapper.named_parameters():
        yield id(parameter), ALONE if name.removeprefix("module.") in left_out else group


def _ranks(group: Any) -> str:
    """``ranks 0, 2`` for a group that is not the whole world."""
    if group is None or group.size() == dist.get_world_size():
        return ""
    return "ranks " + ", ".join(map(str, dist.get_process_group_ranks(group)))
