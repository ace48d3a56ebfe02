"""mmpretrain-702: a stage that is to be frozen stays in the optimizer, whose momentum goes on moving it."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-3, weight_decay=0.05)
for step, (inputs, targets) in enumerate(task.batches(300)):
    if step == 100:
        for parameter in task.model.body.parameters():
            parameter.requires_grad = False
    optimizer.zero_grad(set_to_none=False)
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
