"""One bit of one weight on one rank, as a faulty memory cell or a fault of the processor would flip it.

A CNN learns to tell textures apart, data-parallel. After step 73 a low bit of one weight of the last rank changes.
The gradients of all ranks are averaged as ever, so the ranks go on in step, and the one weight stays different: no
loss, norm or accuracy shows it, and which checkpoint is the right one depends on who writes it.

Expected: ``desync``, cause ``corrupted_gradient``, the tensor; with four ranks the rank. Not expected: anything else.
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import dealt, play

FLIP_AFTER = 73


def flip_a_bit(weight: nn.Parameter) -> None:
    """The fault itself: bit 9 of one float32."""
    with torch.no_grad():
        weight.view(-1).view(torch.int32)[1234] ^= 1 << 9


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(3072, torch.Generator().manual_seed(1)), 64)
    for step, (images, labels) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == FLIP_AFTER and rank == dist.get_world_size() - 1:
            flip_a_bit(model.module.get_parameter("4.weight"))


if __name__ == "__main__":
    play(train, __doc__)
