"""A calibration pushes the biases of a layer so low that its ReLUs never fire again."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, targets) in enumerate(task.batches(420)):
    if step == 200:
        with torch.no_grad():
            [layer for layer in task.model.body if hasattr(layer, "bias")][-1].bias.sub_(50.0)
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
