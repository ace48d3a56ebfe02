"""Every sample is masked out of the loss: it is a constant, and all gradients are zero."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for inputs, targets in task.batches(320):
    scores = task.model(inputs)
    chosen = torch.zeros(len(inputs), 1)
    loss = task.loss(scores * chosen, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
