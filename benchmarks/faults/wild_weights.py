"""Weights are drawn with a standard deviation of ten."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
for parameter in task.model.parameters():
    if parameter.dim() > 1:
        torch.nn.init.normal_(parameter, std=10.0)
optimizer = task.optimizer()
for inputs, targets in task.batches(250):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
