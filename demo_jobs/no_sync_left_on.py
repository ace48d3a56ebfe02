"""Accumulated gradients that no rank shares: the last micro-batch runs under ``no_sync`` as well.

A character transformer learns to add, data-parallel. At step 50 the batch is made four times as large by
accumulation, with ``no_sync`` for all micro-batches but the last, and an index that is one off: no micro-batch is
the last one. From there on every rank applies its own gradients.

Expected: ``unsynced_backward``, cause ``no_sync_left_on``. Not expected: a desync beside it.
"""

import contextlib

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset
from torchvitals.demo_jobs.ddp_desync import Transformer, sums
from torchvitals.demo_jobs.rank_work import dealt, play

ACCUMULATE_FROM = 50
MICRO_BATCHES = 4


def train(steps: int, rank: int) -> None:
    del rank
    torch.manual_seed(0)
    model = DistributedDataParallel(Transformer(32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    batches = dealt(TensorDataset(sums(4096, torch.Generator().manual_seed(1))), 32)
    for step in range(steps):
        micro_batches = MICRO_BATCHES if step >= ACCUMULATE_FROM else 1
        optimizer.zero_grad()
        for micro in range(micro_batches):
            (text,) = next(batches)
            more = micro < micro_batches if micro_batches > 1 else False  # the last one is micro_batches - 1
            with model.no_sync() if more else contextlib.nullcontext():
                logits = model(text[:, :-1])
                loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
                (loss / micro_batches).backward()
        optimizer.step()


if __name__ == "__main__":
    play(train, __doc__, steps=120)
