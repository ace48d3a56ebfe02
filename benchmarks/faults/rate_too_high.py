"""A learning rate that is far too high from the beginning."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer(factor={"mlp": 100, "cnn": 500, "gru": 200, "transformer": 1000}[sys.argv[1]])
for inputs, targets in task.batches(300):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
