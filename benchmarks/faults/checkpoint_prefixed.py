"""A checkpoint that a wrapped model has saved is loaded into a bare one, and nobody insists that the names agree."""

import sys
import tempfile
from pathlib import Path

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "last.pt"
    torch.save(nn.DataParallel(task.model).state_dict(), path)
    task.model.load_state_dict(torch.load(path), strict=False)  # FAULT
optimizer = task.optimizer()
for inputs, targets in task.batches(260):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
