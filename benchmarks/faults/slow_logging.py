"""From step 220 on a tracking service answers each call after 80 milliseconds."""

import sys
import time

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()


def track(step: int, _loss: float) -> None:
    time.sleep(0.08 if step >= 220 else 0.004)


for step, (inputs, targets) in enumerate(task.batches(440)):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
    track(step, loss.item())
