"""A distance by its root: when two rows agree the root is finite and its gradient is not."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, _) in enumerate(task.batches(300)):
    other = inputs + 0.1 * torch.randn_like(inputs)
    if step == 150:
        other[5] = inputs[5]
    first, second = task.model(inputs), task.model(other)
    apart = ((first - second) ** 2).sum(1)
    distance = torch.sqrt(apart)
    loss = (distance - 0.5).square().mean() + 0.01 * first.square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
