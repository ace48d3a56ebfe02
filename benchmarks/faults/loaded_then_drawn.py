"""A checkpoint is loaded, and the initialisation runs once more behind it."""

import copy
import sys

from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))


def fresh(module: nn.Module) -> None:
    for parameter in module.parameters(recurse=False):
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)


def train(model: nn.Module, steps: int) -> None:
    optimizer = task.build(model.parameters(), lr=task.rate)
    for inputs, targets in task.batches(steps):
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()


checkpoint = {name: value + 0.01 for name, value in copy.deepcopy(task.model.state_dict()).items()}
task.model.load_state_dict(checkpoint)
task.model.apply(fresh)
train(task.model, 260)
