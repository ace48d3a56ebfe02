"""A callback draws the weights anew in the middle of the training."""

import sys

from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()


def fresh(module: nn.Module) -> None:
    if hasattr(module, "reset_parameters"):
        module.reset_parameters()


for step, (inputs, targets) in enumerate(task.batches(420)):
    if step == 250:
        task.model.apply(fresh)
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
