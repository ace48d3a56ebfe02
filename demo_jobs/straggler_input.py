"""One rank reads packed data and keeps all the others waiting.

A CNN learns to tell textures apart, data-parallel, each rank from a shard of its own. The shard of the last rank
was never unpacked: its images lie in compressed blocks, and for each image its block is decompressed. Every step takes
as long on every rank, since each waits for the last one; step times say that all are slow, and the order in which
they come to the collectives says who.

Expected: ``straggler``, cause ``slow_input_rank``, the last rank. Not expected: a slow loader on the others.
"""

import lzma

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import endless, play

ITEMS = 768
BLOCK = 12


class Packed(Dataset[tuple[Tensor, ...]]):
    """Images as a compressed file holds them, ``BLOCK`` to a block."""

    def __init__(self, data: TensorDataset) -> None:
        images, self.labels = data.tensors
        self.shape = images.shape[1:]
        self.blocks = [lzma.compress(block.numpy().tobytes(), preset=0) for block in images.split(BLOCK)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        block = torch.frombuffer(bytearray(lzma.decompress(self.blocks[index // BLOCK])), dtype=torch.float32)
        return block.view(-1, *self.shape)[index % BLOCK], self.labels[index]


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    shard = textures(ITEMS, torch.Generator().manual_seed(rank))
    data: Dataset[tuple[Tensor, ...]] = Packed(shard) if rank == dist.get_world_size() - 1 else shard
    torch.manual_seed(rank)
    batches = endless(DataLoader(data, batch_size=64, shuffle=True, drop_last=True))
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=300)
