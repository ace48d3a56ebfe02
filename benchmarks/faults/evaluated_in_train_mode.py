"""The validation loop forgets model.eval(): dropout and batch statistics are at work in it."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
model = nn.Sequential(task.model, nn.Dropout(0.1))
optimizer = task.build(model.parameters(), lr=task.rate)
for step, (inputs, targets) in enumerate(task.batches(360)):
    optimizer.zero_grad()
    loss = task.loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
    if step % 60 == 59:
        with torch.no_grad():
            wrong = 0
            for start in range(0, 1024, 64):
                scores = model(task.inputs[start : start + 64])
                wrong += int((scores.argmax(-1) != task.targets[start : start + 64]).sum())
