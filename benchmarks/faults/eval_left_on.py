"""The first validation switches to evaluation mode, and nobody switches back."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
model = nn.Sequential(task.model, nn.Dropout(0.1))
optimizer = task.build(model.parameters(), lr=task.rate)
model.train()
for step, (inputs, targets) in enumerate(task.batches(360)):
    optimizer.zero_grad()
    loss = task.loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
    if step % 60 == 59:
        model.eval()
        with torch.no_grad():
            for start in range(0, 512, 64):
                model(task.inputs[start : start + 64])
