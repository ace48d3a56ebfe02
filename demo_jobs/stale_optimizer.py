"""An optimizer that updates weights nobody uses any more, on every rank.

A classifier is pretrained on coarse classes and then fitted with a new head for fine ones. The optimizer was built
before and still holds the old head. Its body goes on learning; the new head stays as it was drawn, on all ranks
alike, so that the replicas agree to the last bit.

Expected: ``stuck_parameters``, cause ``stale_optimizer_parameters``. Not expected: a desync.
"""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import CLASSES, network, textures
from torchvitals.demo_jobs.rank_work import dealt, play


def train(steps: int, rank: int) -> None:
    del rank
    torch.manual_seed(0)
    whole = network()
    optimizer = torch.optim.SGD(whole.parameters(), lr=0.02, momentum=0.9)
    whole.set_submodule("10", nn.Linear(512, CLASSES))
    model = DistributedDataParallel(whole)
    batches = dealt(textures(3072, torch.Generator().manual_seed(1)), 64)
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__)
