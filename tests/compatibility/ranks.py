"""One of two ranks: ``python -m compatibility.ranks DIRECTORY``, with the variables that torchrun sets.

Plays every scene bare and watched, holds the record against the truth, and writes what came of it:
``DIRECTORY/<scene>.<rank>.json``. The runs lie in ``DIRECTORY/<scene>.<rank>/``.
"""

import json
import math
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from compatibility.toys import loss_of
from compatibility.trial import Job, Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms, norm
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

STEPS = 4
WHOLE: dict[str, list[float]] = {}
"""Scene → the norm at each step that no rank can tell alone."""


def net() -> nn.Sequential:
    """The same on both ranks; odd sizes, so that shards differ and one is empty."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 17), nn.ReLU(), nn.Linear(17, 1), nn.Tanh(), nn.Linear(1, 3))
    torch.manual_seed(2 + dist.get_rank())
    return model


def ddp(watch: Watch, truth: Truth) -> object:
    """DDP: the norm of the averaged gradients, on every rank the same."""
    model = DistributedDataParallel(net())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with watch(model, optimizer):
        for step in range(STEPS):
            loss = loss_of(model)
            optimizer.zero_grad()
            loss.backward()
            truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()), batch_items=8)
            truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
            assert len({round(each, 6) for each in everybody(gradient_norm(model.parameters()))}) == 1
            optimizer.step()
    return model


def ddp_accumulating(watch: Watch, truth: Truth) -> object:
    """DDP: accumulation under ``no_sync``, clipping, ``gradient_as_bucket_view``."""
    model = DistributedDataParallel(net(), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer):
        for step in range(STEPS):
            optimizer.zero_grad()
            with model.no_sync():
                first = loss_of(model) / 2
                first.backward()
            second = loss_of(model) / 2
            second.backward()
            truth.note(step, loss=first + second, backward_passes=2, no_sync_passes=1)
            truth.note(step, gradient_norm_unclipped=gradient_norm(model.parameters()))
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            truth.note(step, gradient_norm=gradient_norm(model.parameters()))
            optimizer.step()
    return model


def ddp_compiled(watch: Watch, truth: Truth) -> object:
    """DDP around a compiled model."""
    torch._dynamo.reset()
    model = DistributedDataParallel(torch.compile(net(), backend="eager"))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer):
        for step in range(STEPS):
            loss = loss_of(model)
            optimizer.zero_grad()
            loss.backward()
            truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()), batch_items=8)
            optimizer.step()
    return [*model.parameters()]


def fsdp2(watch: Watch, truth: Truth) -> object:
    """FSDP2: every rank tells of its shards."""
    model = net()
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return train_shards(fully_shard(model), watch, truth)


def fsdp2_in_bf16(watch: Watch, truth: Truth) -> object:
    """FSDP2 with bf16 parameters in forward and backward."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=torch.float32)
    return train_shards(fully_shard(net(), mp_policy=policy), watch, truth)


def fsdp2_hybrid(watch: Watch, truth: Truth) -> object:
    """FSDP2 with replicas: both ranks hold the same, which counts once."""
    mesh = init_device_mesh("cpu", (2, 1), mesh_dim_names=("replicate", "shard"))
    return train_shards(fully_shard(net(), mesh=mesh), watch, truth)


def fsdp2_clipping(watch: Watch, truth: Truth) -> object:
    """FSDP2: the norm that the job's own clipping brings together."""
    model = fully_shard(net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with watch(model, optimizer):
        for step in range(STEPS):
            loss = loss_of(model)
            optimizer.zero_grad()
            loss.backward()
            truth.note(step, loss=loss, gradient_norm_unclipped=whole_norm(model.parameters()))
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            truth.note(step, gradient_norm=whole_norm(model.parameters()))
            optimizer.step()
    return [local(p) for p in model.parameters()]


def train_shards(model: nn.Module, watch: Watch, truth: Truth) -> object:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    wholes: list[float] = []
    WHOLE[sys._getframe(1).f_code.co_name] = wholes
    with watch(model, optimizer):
        for step in range(STEPS):
            loss = loss_of(model)
            optimizer.zero_grad()
            loss.backward()
            truth.note(step, loss=loss, batch_items=8, gradient_norm_shard=part_norm(model.parameters()))
            wholes.append(whole_norm(model.parameters()))
            optimizer.step()
    return [local(p) for p in model.parameters()], wholes


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_norm(parameters: Iterable[torch.Tensor]) -> float:
    """Of this rank's shards; where both ranks hold the same, half of the squares each."""
    parameters = list(parameters)
    copies = 2 if any(p.is_replicate() for p in parameters[0].placements) else 1
    return norm([local(p.grad) for p in parameters if p.grad is not None]) / math.sqrt(copies)


def whole_norm(parameters: Iterable[torch.Tensor]) -> float:
    """Of the gradients that all ranks hold together; the job's own collective."""
    return norm([p.grad.full_tensor() for p in parameters if p.grad is not None])


def everybody(value: float) -> list[float]:
    """``value`` of every rank."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found


SCENES: dict[str, Job] = {
    scene.__name__: scene
    for scene in (ddp, ddp_accumulating, ddp_compiled, fsdp2, fsdp2_in_bf16, fsdp2_hybrid, fsdp2_clipping)
}


def play(name: str, directory: Path) -> dict[str, Any]:
    """What came of one scene on this rank."""
    trial = Trial(directory / f"{name}.{dist.get_rank()}", (), {})
    try:
        truth = trial.twice(SCENES[name])
        trial.compare(truth)
    except Exception:  # noqa: BLE001 (the other scenes are still to be played, and the test is to see all of it)
        return {"failed": traceback.format_exc()}
    return {"signals": sorted(truth.signals), "said": trial.said(), "whole": WHOLE.get(name, [])}


def main() -> None:
    """Play all scenes."""
    directory = Path(sys.argv[1])
    dist.init_process_group("gloo")
    for name in SCENES:
        outcome = play(name, directory)
        (directory / f"{name}.{dist.get_rank()}.json").write_text(json.dumps(outcome))
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
