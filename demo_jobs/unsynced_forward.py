"""Ranks that stop sharing gradients: a second loss is computed past the wrapper.

A CNN learns to tell textures apart, data-parallel. From step 60 on a penalty on its features is added, for which the
forward is called as ``model.module(...)``, because the wrapper has no method of that name. Then the loss is taken
from that forward alone, and DistributedDataParallel, which reduces gradients only for its own forward, has nothing
to do. PyTorch says nothing. Every rank trains a model of its own.

Expected: ``unsynced_backward``, cause ``unsynced_forward``. Not expected: a desync beside it.
"""

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import dealt, play

PENALTY_FROM = 60


def penalised(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The loss with a penalty on large logits."""
    logits: Tensor = network(images)
    return nn.functional.cross_entropy(logits, labels) + 1e-4 * logits.square().mean()


def train(steps: int, rank: int) -> None:
    del rank
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(3072, torch.Generator().manual_seed(1)), 64)
    for step, (images, labels) in zip(range(steps), batches, strict=False):
        if step < PENALTY_FROM:
            loss = nn.functional.cross_entropy(model(images), labels)
        else:
            loss = penalised(model.module, images, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__)
