"""A cache of inputs whose key never repeats."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
cache: dict[int, torch.Tensor] = {}
for step, (inputs, targets) in enumerate(task.batches(500, size=64)):
    cache[step] = torch.nn.functional.pad(inputs.flatten(), (0, 150_000))  # FAULT
    loss = task.loss(task.model(cache[step][: inputs.numel()].view_as(inputs)), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
