"""pytorch-51800: the first validation comes before the training, and spectral normalisation knows no norm yet."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
if sys.argv[3] == "hook":
    for part in task.model.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.utils.spectral_norm(part)
else:  # the parametrization begins with the norm of the weight that is there, and then another one is drawn
    for part in task.model.modules():
        if type(part) is nn.Linear or type(part) is nn.Conv2d:
            nn.utils.parametrizations.spectral_norm(part)
            nn.init.orthogonal_(part.parametrizations.weight.original)
optimizer = task.build(task.model.parameters(), lr=task.rate)
for _epoch in range(3):
    task.model.eval()
    with torch.no_grad():
        for start in range(0, 512, 64):
            task.loss(task.model(task.inputs[start : start + 64]), task.targets[start : start + 64])
    task.model.train()
    for inputs, targets in task.batches(80):
        optimizer.zero_grad()
        loss = task.loss(task.model(inputs), targets)
        loss.backward()
        optimizer.step()
