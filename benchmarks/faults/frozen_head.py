"""pytorch-forum-84911: all is frozen but one layer, and the optimizer holds another."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
for parameter in task.model.parameters():
    parameter.requires_grad = False
for parameter in next(iter(task.model.body.children()), task.model.body).parameters():
    parameter.requires_grad = True
optimizer = task.build(task.model.head.parameters(), lr=task.rate)
for inputs, targets in task.batches(260):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
