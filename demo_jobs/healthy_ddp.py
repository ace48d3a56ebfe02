"""Two ranks that train well and do everything that looks like a fault and is none.

A CNN learns to tell generated textures apart, data-parallel: gradients are accumulated over micro-batches under
``no_sync``, BatchNorm statistics differ between ranks, dropout is seeded differently on each rank, the ranks' shards
take unequal work, and rank 0 alone evaluates while the others wait.

Expected: nothing.
"""

import argparse
import contextlib
import math
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

CLASSES = 6
ACCUMULATE = 3
EVALUATE_EVERY = 40


def textures(count: int, generator: torch.Generator, size: int = 16) -> TensorDataset:
    """Noisy stripes; the class is their direction."""
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    angles = labels * math.pi / CLASSES
    phases = torch.rand(count, generator=generator) * 2 * math.pi
    across, down = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="xy")
    along = across * angles.cos().view(-1, 1, 1) + down * angles.sin().view(-1, 1, 1)
    images = (along + phases.view(-1, 1, 1)).sin().unsqueeze(1)
    return TensorDataset(images + 2.0 * torch.randn(images.shape, generator=generator), labels)


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(512, CLASSES),
    )


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of ``images`` that is recognised."""
    model.eval()
    with torch.no_grad():
        right: float = (model(images).argmax(1) == labels).float().mean().item()
    model.train()
    return right


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    torch.manual_seed(100 + rank)  # dropout differs from rank to rank, as it should
    data = textures(3072, torch.Generator().manual_seed(1))
    held_out = textures(512, torch.Generator().manual_seed(2)).tensors
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data, seed=3)
    loader = DataLoader(data, batch_size=32, sampler=sampler, drop_last=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    batches, step, epoch = iter(loader), 0, 0
    while step < steps:
        optimizer.zero_grad()
        for micro in range(ACCUMULATE):
            batch = next(batches, None)
            if batch is None:
                epoch += 1
                sampler.set_epoch(epoch)
                batches = iter(loader)
                batch = next(batches)
            images, labels = batch
            with contextlib.nullcontext() if micro == ACCUMULATE - 1 else model.no_sync():
                (nn.functional.cross_entropy(model(images), labels) / ACCUMULATE).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        step += 1
        if rank == 0 and step % EVALUATE_EVERY == 0:
            print(f"step {step} recognised {evaluate(model.module, *held_out):.0%}")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=120)
    steps = arguments.parse_args().steps
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(steps, int(os.environ["RANK"]))
    dist.barrier()  # rank 0 may still be evaluating
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
