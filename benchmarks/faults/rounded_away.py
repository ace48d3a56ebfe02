"""Bfloat16 weights and a small rate: every update is rounded away."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
model = task.model.to(torch.bfloat16)
with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(torch.sign(parameter + 1e-9) * 0.25)  # a checkpoint whose weights are of some size
optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
for inputs, targets in task.batches(400):
    optimizer.zero_grad()
    loss = task.loss(model(inputs.to(torch.bfloat16)).float(), targets)
    loss.backward()
    optimizer.step()
