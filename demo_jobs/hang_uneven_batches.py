"""Ranks with unequal numbers of batches: the one with fewer is done while the others wait for its gradients.

A CNN learns to tell textures apart, data-parallel. Each rank reads a file of its own, and rank 1's has lost its last
part. After 90 steps rank 1 has no more batches and goes to the barrier at the end; the others have some left and wait
for the gradients of a step that rank 1 never takes. ``Join``, or dropping what is uneven, would have helped.

Expected: ``hang``, cause ``collective_mismatch``. Not expected: a crash beside it, though that is how torch
ends it, after a minute.
"""

from datetime import timedelta

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import play

BATCH = 32
PATIENCE = timedelta(seconds=60)
LOST = 10
"""Batches that rank 1's file lacks."""


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = steps - (LOST if rank == 1 else 0)
    file = textures(batches * BATCH, torch.Generator().manual_seed(1 + rank))
    for images, labels in DataLoader(file, batch_size=BATCH):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=100, patience=PATIENCE)
