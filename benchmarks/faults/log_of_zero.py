"""A loss of one's own takes the logarithm of a probability that becomes zero for one batch."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()


def entropy(scores: torch.Tensor) -> torch.Tensor:
    shares = scores.softmax(-1)
    return -(shares * torch.log(shares)).sum(-1).mean()


for step, (inputs, targets) in enumerate(task.batches(300)):
    scores = task.model(inputs)
    sharp = scores * (1000.0 if step == 170 else 1.0)
    loss = task.loss(scores, targets) + 0.01 * entropy(sharp)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
