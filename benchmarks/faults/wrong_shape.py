"""The last batch of the data has another width."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, targets) in enumerate(task.batches(200)):
    batch = inputs[..., :-1] if step == 130 else inputs
    optimizer.zero_grad()
    loss = task.loss(task.model(batch), targets)
    loss.backward()
    optimizer.step()
