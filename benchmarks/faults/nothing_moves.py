"""The job runs and nothing is learnt: gradients clipped away, an ``eps`` above them, a rate lost on its way."""

import sys

import torch
from tasks import make
from torch import nn

task, fault = make(sys.argv[1], int(sys.argv[2])), sys.argv[3]
groups = [{"params": [p]} for p in task.model.parameters()]
if fault == "epsilon":
    optimizer = torch.optim.Adam(groups, lr=task.rate / 4, eps=8.0)
elif fault == "rate":
    optimizer = torch.optim.SGD(groups, lr=2e-6, momentum=0.9, nesterov=True)
elif fault == "values":
    optimizer = torch.optim.SGD(groups, lr=0.1)
else:
    optimizer = task.build(groups, lr=task.rate)
for _ in range(8):
    for rows in torch.randperm(len(task.inputs)).split(48):
        loss = task.loss(task.model(task.inputs[rows]), task.targets[rows])
        loss.backward()
        if fault == "values":
            nn.utils.clip_grad_value_(task.model.parameters(), clip_value=1e-8)
        else:
            nn.utils.clip_grad_norm_(task.model.parameters(), max_norm=5e-6 if fault == "clip" else 5.0)
        optimizer.step()
        optimizer.zero_grad()
