"""A schedule that counts epochs is stepped once per batch: the rate is gone after a hundred steps."""

import sys

import torch
from tasks import make
from torch.utils.data import DataLoader, TensorDataset

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.1)
loader = DataLoader(TensorDataset(task.inputs, task.targets), batch_size=32, shuffle=True)
for _epoch in range(6):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = task.loss(task.model(inputs), targets)
        loss.backward()
        optimizer.step()
        schedule.step()
