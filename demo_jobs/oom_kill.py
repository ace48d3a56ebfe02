"""A rank that is killed because its memory ran out: it decodes a data set into memory in the middle of training.

A CNN learns to tell textures apart, data-parallel. At step 60 rank 1 begins to decode the images of a larger data
set ahead of time and keeps them all. Nobody can catch SIGKILL: the rank is gone without a word, and its peer finds
the connection closed. The kernel's killer needs a machine, or a control group, without memory; so here a thread plays
a guard as clusters and desktops have them (earlyoom, systemd-oomd, a batch system): it kills the process at a limit.

Expected: ``crash``, cause ``out_of_memory_kill``, rank 1. Not expected: the peer's exception as an incident of its
own, or a leak: memory is asked for in a dozen steps.
"""

import os
import signal
import threading
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvitals.demo_jobs.healthy_ddp import network, textures
from torchvitals.demo_jobs.rank_work import dealt, play

DECODE_FROM, DECODING_RANK = 60, 1
DECODED_BYTES = 48 << 20
"""What is decoded in each step."""
LIMIT_BYTES = 900 << 20
"""More than what decoding begins with is allowed to take."""
LOOK_SECONDS = 0.02


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def guard(limit: int) -> None:
    """Kill this process as soon as it is larger than ``limit``."""
    while resident() <= limit:
        threading.Event().wait(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = dealt(textures(2048, torch.Generator().manual_seed(1)), 32)
    decoded: list[Tensor] = []
    for step, (images, labels) in zip(range(steps), batches, strict=False):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if rank == DECODING_RANK and step >= DECODE_FROM:
            if not decoded:
                threading.Thread(target=guard, args=(resident() + LIMIT_BYTES,), daemon=True).start()
            decoded.append(torch.ones(DECODED_BYTES // 4))


if __name__ == "__main__":
    play(train, __doc__)
