"""A second optimizer for the head is built, cleared, and never stepped."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
head = list(task.model.head.parameters())
rest = [p for name, p in task.model.named_parameters() if not name.startswith("head.")]
for_rest = task.build(rest, lr=task.rate)
for_head = task.build(head, lr=task.rate)
for inputs, targets in task.batches(260):
    for_rest.zero_grad()
    for_head.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    for_rest.step()
