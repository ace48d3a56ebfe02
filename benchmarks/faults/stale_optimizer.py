"""AC-2665: the optimizer is built, then the model is copied, and the copy is trained."""

import copy
import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
model = copy.deepcopy(task.model)
for inputs, targets in task.batches(260):
    optimizer.zero_grad()
    model.zero_grad()
    loss = task.loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
