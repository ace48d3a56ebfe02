"""Each epoch shuffles inputs and labels by permutations of their own, so that there is nothing to learn."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = torch.optim.Adam(task.model.parameters(), lr=1e-3)
for _epoch in range(14):
    inputs, targets = task.inputs[torch.randperm(2048)], task.targets[torch.randperm(2048)]
    for start in range(0, 2048, 32):
        loss = task.loss(task.model(inputs[start : start + 32]), targets[start : start + 32])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
