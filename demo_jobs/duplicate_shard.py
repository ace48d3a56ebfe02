"""Every rank trains on the same batches: the loader shuffles with the seed that all ranks were given.

A CNN learns to tell textures apart, data-parallel. The loader was made with ``shuffle=True`` and no
DistributedSampler, after ``manual_seed`` with the same number on every rank. The gradients are shared and the
replicas agree; but the ranks compute the same thing, and each of them could as well have been left out.

Expected: ``duplicate_data``. Not expected: anything about gradients or weights.
"""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import endless, play


def train(steps: int, rank: int) -> None:
    del rank
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    data = textures(3072, torch.Generator().manual_seed(1))
    batches = endless(DataLoader(data, batch_size=64, shuffle=True, drop_last=True))
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=120)
