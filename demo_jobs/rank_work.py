"""What the jobs of several ranks share: how they start and end, and how a rank gets its batches."""

import argparse
import os
from collections.abc import Callable, Iterator
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

PATIENCE = timedelta(minutes=30)
"""How long a collective waits for the other ranks; torch's own default with gloo."""


def play(
    train: Callable[[int, int], None], description: str | None, steps: int = 160, patience: timedelta = PATIENCE
) -> None:
    """Run ``train(steps, rank)`` in the process group that torchrun has prepared."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=steps)
    steps = arguments.parse_args().steps
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=patience)
    train(steps, int(os.environ["RANK"]))
    dist.barrier()
    dist.destroy_process_group()


def endless(loader: DataLoader[tuple[Tensor, ...]]) -> Iterator[list[Tensor]]:
    """Epoch after epoch, each in an order of its own."""
    epoch = 0
    while True:
        if isinstance(loader.sampler, DistributedSampler):
            loader.sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def dealt(data: Dataset[tuple[Tensor, ...]], batch_size: int) -> Iterator[list[Tensor]]:
    """Batches of this rank's part of ``data``, dealt out anew in every epoch."""
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data, seed=3)
    return endless(DataLoader(data, batch_size=batch_size, sampler=sampler, drop_last=True))
