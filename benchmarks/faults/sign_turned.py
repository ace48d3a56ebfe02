"""The sign of the loss is turned: by a minus where a likelihood stood before, or by ``maximize=True``."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
if sys.argv[3] == "maximize":
    optimizer = torch.optim.Adam(task.model.parameters(), lr=task.rate / 2, maximize=True)
    for inputs, targets in task.batches(400):
        optimizer.zero_grad()
        task.loss(task.model(inputs), targets).backward()
        optimizer.step()
else:
    optimizer = task.optimizer()
    for inputs, targets in task.batches(300):
        if sys.argv[3] == "smoothed":
            score = -torch.nn.functional.cross_entropy(task.model(inputs), targets, label_smoothing=0.1)
        else:
            score = -task.loss(task.model(inputs), targets)  # FAULT
        optimizer.zero_grad()
        score.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
        optimizer.step()
