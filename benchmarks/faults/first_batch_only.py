"""``next(iter(loader))`` in the loop: the first batch for ever."""

import sys

import torch
from tasks import make
from torch.utils.data import DataLoader, TensorDataset

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer(0.3)
loader = DataLoader(TensorDataset(task.inputs, task.targets), batch_size=64)


def gradient_step() -> None:
    inputs, targets = next(iter(loader))  # FAULT
    optimizer.zero_grad()
    task.loss(task.model(inputs), targets).backward()
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), 5.0)
    optimizer.step()


for _ in range(180):
    gradient_step()
