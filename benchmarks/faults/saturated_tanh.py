"""Tanh units driven into their flat ends by weights that grew threefold at once: a checkpoint of another scale."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
rows = task.inputs.flatten(1)
classes = int(task.targets.max()) + 1
model = nn.Sequential()
model.add_module("first", nn.Linear(rows.shape[1], 64))
model.add_module("squash", nn.Tanh())
model.add_module("second", nn.Linear(64, 64))
model.add_module("again", nn.Tanh())
model.add_module("head", nn.Linear(64, classes))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
for step in range(420):
    if step == 200:
        with torch.no_grad():
            model.second.weight.mul_(60.0)
    chosen = torch.randint(0, len(rows), (64,))
    loss = task.loss(model(rows[chosen]), task.targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
