"""The loss of every step is kept, and its graph with it."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
history = []
for inputs, targets in task.batches(420, size=256):
    scores = task.model(inputs)
    loss = task.loss(scores, targets)
    optimizer.zero_grad()
    loss.backward(retain_graph=True)
    optimizer.step()
    history.append(loss)  # FAULT
