"""Ranks that work unevenly but fairly, and whose BatchNorm statistics each go their own way.

A small convolutional network learns to tell textures apart, data-parallel. A batch holds 16 to 96 images, by chance
and another number on each rank, so that now this rank is late and now that one. The running statistics of BatchNorm
are not shared (``broadcast_buffers=False``) and differ from rank to rank by the noise of their batches. Dropout is
seeded by rank, gradients are accumulated, and rank 0 evaluates alone.

Expected: nothing.
"""

import contextlib

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import evaluate, network, textures
from torchvitals.demo_jobs.rank_work import dealt, play

LARGEST = 96
ACCUMULATE = 2
EVALUATE_EVERY = 50


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network(), broadcast_buffers=False)
    torch.manual_seed(100 + rank)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(6144, torch.Generator().manual_seed(1)), LARGEST)
    held_out = textures(512, torch.Generator().manual_seed(2)).tensors
    for step in range(steps):
        optimizer.zero_grad()
        for micro in range(ACCUMULATE):
            images, labels = next(batches)
            size = int(torch.randint(16, LARGEST + 1, ()))
            with contextlib.nullcontext() if micro == ACCUMULATE - 1 else model.no_sync():
                loss = nn.functional.cross_entropy(model(images[:size]), labels[:size])
                (loss / ACCUMULATE).backward()
        optimizer.step()
        if rank == 0 and step % EVALUATE_EVERY == 0:
            print(f"step {step} recognised {evaluate(model.module, *held_out):.0%}")


if __name__ == "__main__":
    play(train, __doc__, steps=300)
