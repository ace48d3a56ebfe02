"""Ranks whose network becomes slow: all of them come to a collective in time, and it does not end.

A classifier of textures is trained data-parallel, as well on one rank as on the others. At step 160 the last rank's
share of the network is taken away: what it sends to its peers goes at 10 MB/s from then on (``SO_MAX_PACING_RATE`` of
its TCP connections, which is what a congested switch or a link that fell back to a lower rate does). No rank computes
more, none reads more, and they arrive together. Which link it is their arrivals do not tell.

Expected: ``straggler``, cause ``slow_communication``, no rank by name. Not expected: the rank that then comes late
because its data did (it is the one that waits), a slow dependency of the code.
"""

import contextlib
import os
import socket
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import CLASSES, textures
from torchvitals.demo_jobs.rank_work import dealt, play

CONGESTED_FROM = 160
BYTES_PER_SECOND = 10_000_000
SO_MAX_PACING_RATE = 47
"""Of Linux; Python has no name for it."""


def network() -> nn.Module:
    """450,000 parameters: 1.8 MB of gradients."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(1024, 420),
        nn.ReLU(),
        nn.Linear(420, CLASSES),
    )


def congest(rate: int) -> None:
    """Let no connection of this process to another send more than ``rate`` bytes per second."""
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is closed by now
            if descriptor.is_socket():
                limit(socket.socket(fileno=os.dup(int(descriptor.name))), rate)


def limit(connection: socket.socket, rate: int) -> None:
    """Let ``connection`` send no more than ``rate`` bytes per second, if it is one to a peer."""
    with connection, contextlib.suppress(OSError):
        if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.getpeername():
            connection.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(3072, torch.Generator().manual_seed(1)), 64)
    for step, (images, labels) in zip(range(steps), batches, strict=False):
        if step == CONGESTED_FROM and rank == dist.get_world_size() - 1:
            congest(BYTES_PER_SECOND)
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=260)
