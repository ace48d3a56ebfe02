"""An exponential schedule with the wrong sign: the rate grows by three percent a step."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=1.03)
for inputs, targets in task.batches(420):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
    schedule.step()
