"""One rank meets a broken sample and dies; the others lose their connection to it.

A CNN learns to tell textures apart, data-parallel. The last rank's part of the data holds one image with a label that
does not exist. Its exception is the cause; those that follow on the other ranks, or their end by torchrun, are not.

Expected: ``crash``, cause ``exception``, the last rank and the line that checks labels. Not expected: the other ranks'
exceptions as incidents.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import CLASSES, network, textures
from torchvitals.demo_jobs.rank_work import dealt, play

BROKEN_STEP = 70


def checked(labels: Tensor) -> Tensor:
    """``labels``, if all of them are classes."""
    if int(labels.max()) >= CLASSES:
        raise ValueError(f"label {int(labels.max())} of {CLASSES} classes")
    return labels


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(2048, torch.Generator().manual_seed(1)), 32)
    for step, (images, labels) in zip(range(steps), batches, strict=False):
        if step == BROKEN_STEP and rank == dist.get_world_size() - 1:
            labels[5] = 255
        loss = nn.functional.cross_entropy(model(images), checked(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__)
