"""A hole in the data: one value of one batch is NaN."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, targets) in enumerate(task.batches(300)):
    if step == 165:
        inputs[4, ..., 3] = torch.nan
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.loss(task.model(inputs).float(), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
