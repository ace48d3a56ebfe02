"""The weight decay of one optimizer is given to another: a penalty to Adam, AdamW's to SGD, too much to AdamW."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
weights = task.model.parameters()
if sys.argv[1] == "transformer":
    optimizer = torch.optim.AdamW(weights, lr=task.rate, weight_decay=40.0)
elif sys.argv[1] == "mlp":
    optimizer = torch.optim.SGD(weights, lr=0.1, weight_decay=0.3)
else:
    optimizer = torch.optim.Adam(weights, lr=task.rate, weight_decay=1.0)
for inputs, targets in task.batches(500):
    optimizer.zero_grad(set_to_none=True)
    task.loss(task.model(inputs), targets).backward()
    optimizer.step()
