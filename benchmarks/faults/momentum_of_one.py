"""A momentum of 1.0: what was ever pushed is never forgotten."""

import sys

import torch
from tasks import ROWS, Task, clusters, make
from torch import nn
from torch.nn import functional as F  # noqa: N812

seed = int(sys.argv[2])
if sys.argv[1] == "tanh":
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(20, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 10))
    task = Task(net, *clusters((20,), 10, 1.0), F.cross_entropy, torch.optim.SGD, 0.05)
else:
    task = make(sys.argv[1], seed)
optimizer = torch.optim.SGD(task.model.parameters(), lr=0.05, momentum=1.0)  # FAULT
epoch = torch.utils.data.TensorDataset(task.inputs, task.targets)
for _ in range(6):
    for inputs, targets in torch.utils.data.DataLoader(epoch, batch_size=32, shuffle=True):
        loss = task.loss(task.model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
assert len(epoch) == ROWS
