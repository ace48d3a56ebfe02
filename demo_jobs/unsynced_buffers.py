"""A rank whose BatchNorm remembers other images than the others': its shard comes from another camera.

A CNN learns to tell textures apart, data-parallel, with running statistics that are not shared
(``broadcast_buffers=False``). The images of the last rank's shard are twice as bright. In training each rank normalises
by its own batches, gradients are shared, and weights agree to the last bit; but the statistics of that rank, by which
it would evaluate, and which its checkpoint would hold, are not those of the others.

Expected: ``desync``, cause ``unsynced_buffers``. Not expected: anything about weights or gradients.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import endless, play

BRIGHTER = 8.0


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network(), broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    images, labels = textures(768, torch.Generator().manual_seed(rank)).tensors
    if rank == dist.get_world_size() - 1:
        images = 2 * images + BRIGHTER
    torch.manual_seed(rank)
    batches = endless(DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True, drop_last=True))
    for _, (batch, wanted) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=200)
