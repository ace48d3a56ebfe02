"""Ranks that wait for each other in different places: rank 0 alone comes to a barrier.

A CNN learns to tell textures apart, data-parallel. Every eightieth step rank 0 writes a checkpoint and then wants to
be sure that all have seen it, by a barrier that stands inside ``if rank == 0``. The others have gone on to the next
step and wait for gradients of rank 0, which waits for them in the barrier. By default they would wait for 30
minutes; here torch gives up after one.

Expected: ``hang``, cause ``collective_mismatch``; of four ranks, rank 0. Not expected: a crash beside it, though
that is how torch ends it.
"""

import tempfile
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import dealt, play

SAVE_EVERY = 80
PATIENCE = timedelta(seconds=60)


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(3072, torch.Generator().manual_seed(1)), 64)
    with tempfile.TemporaryDirectory() as folder:
        for step, (images, labels) in zip(range(1, steps + 1), batches, strict=False):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % SAVE_EVERY == 0 and rank == 0:
                torch.save(model.module.state_dict(), Path(folder) / f"{step}.pt")
                dist.barrier()


if __name__ == "__main__":
    play(train, __doc__, patience=PATIENCE)
