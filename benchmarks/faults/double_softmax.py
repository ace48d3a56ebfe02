"""The model ends in a softmax, and the loss applies another."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
model = torch.nn.Sequential(task.model, torch.nn.Softmax(dim=-1))
optimizer = task.build(model.parameters(), lr=task.rate)
criterion = torch.nn.CrossEntropyLoss()
for inputs, targets in task.batches(320):
    optimizer.zero_grad()
    loss = criterion(model(inputs), targets)  # FAULT
    loss.backward()
    optimizer.step()
