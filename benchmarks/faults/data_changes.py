"""What is read changes on the way: labels of other rows, rows of zeros, targets in thousandths."""

import sys

import torch
from tasks import make

change = sys.argv[3]
task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, targets) in enumerate(task.batches(520, 64)):
    changed = change if step >= 300 else ""
    answers = task.model(torch.zeros_like(inputs) if changed == "empty" else inputs)
    truth = targets.roll(7, 0) if changed == "labels" else targets * 1000 if changed == "unit" else targets
    loss = task.loss(answers, truth)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
