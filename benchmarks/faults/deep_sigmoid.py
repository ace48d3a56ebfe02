"""Twenty layers of sigmoids or hard tanhs: no gradient arrives at the first."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
rows = task.inputs.flatten(1)
outputs = int(task.targets.max()) + 1 if not task.targets.is_floating_point() else rows.shape[1]
layers: list[nn.Module] = [nn.Linear(rows.shape[1], 32)]
for _ in range(20):
    layers += [nn.Sigmoid(), nn.Linear(32, 32)]
model = nn.Sequential(*layers, nn.Linear(32, outputs))
optimizer = task.build(model.parameters(), lr=task.rate)
for _step in range(400):
    chosen = torch.randint(0, len(rows), (32,))
    loss = task.loss(model(rows[chosen]), task.targets[chosen].flatten(1) if outputs > 10 else task.targets[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
