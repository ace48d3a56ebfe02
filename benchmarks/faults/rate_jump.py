"""A milestone multiplies the learning rate by 300 where it should have divided it."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[180], gamma=300)
for inputs, targets in task.batches(320):
    optimizer.zero_grad(set_to_none=False)
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(task.model.parameters(), 5.0)
    optimizer.step()
    schedule.step()
