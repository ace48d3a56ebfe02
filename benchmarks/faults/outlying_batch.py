"""One batch is read from another file: noise ten thousand times as large."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, targets) in enumerate(task.batches(300)):
    scaled = torch.randn_like(inputs) * 1e4 if step == 175 else inputs
    loss = task.loss(task.model(scaled), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
