"""stackoverflow-60335387: nobody clears the gradients."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for inputs, targets in task.batches(260):
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
