"""The configuration's learning rate is lost on its way: the optimizer steps with zero from step 120 on."""

import sys

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for step, (inputs, targets) in enumerate(task.batches(300)):
    if step == 120:
        for group in optimizer.param_groups:
            group["lr"] = 0.0
    for part in range(2):
        half = slice(16 * part, 16 * part + 16)
        (task.loss(task.model(inputs[half]), targets[half]) / 2).backward()
    optimizer.step()
    optimizer.zero_grad()
