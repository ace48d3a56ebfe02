"""A thread that prepares batches dies of a broken row, and the loop that waits for it gives up long after."""

import queue
import sys
import threading

from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
ready: queue.Queue = queue.Queue(2)


def feed() -> None:
    for number, batch in enumerate(task.batches(400)):
        ready.put((batch[0], batch[1].view(7, 11) if number == 140 else batch[1]))  # FAULT


threading.Thread(target=feed, name="feeder", daemon=True).start()
for _ in range(400):
    inputs, targets = ready.get(timeout=3)
    loss = task.loss(task.model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
