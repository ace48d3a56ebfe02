"""A linear decay that goes on past its end: from step 240 on the learning rate is negative."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 240)
for inputs, targets in task.batches(560):
    loss = task.loss(task.model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
