"""The gradients are cleared between backward and step: the optimizer never sees one."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for inputs, targets in task.batches(260):
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()
