"""One rank computes more than the others, and keeps them waiting.

A CNN learns to tell textures apart, data-parallel. On the last rank a hook that was once used to study the spectrum
of activations was left on the model. The order in which ranks come to the collectives says who is late; the
loaders are all as fast.

Expected: ``straggler``, cause ``slow_compute_rank``, the last rank. Not expected: anything about the input.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import dealt, play


def study(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """The spectrum of a layer's features, which nobody looks at any more."""
    with torch.no_grad():
        torch.linalg.svdvals(output.flatten(2))


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    whole = network()
    if rank == dist.get_world_size() - 1:
        whole.get_submodule("0").register_forward_hook(study)
    model = DistributedDataParallel(whole)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(3072, torch.Generator().manual_seed(1)), 64)
    for _, (images, labels) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=300)
