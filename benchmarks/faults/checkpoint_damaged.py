"""transformers-29903: one tensor of the checkpoint that is loaded is nothing but zeros."""

import copy
import sys
import tempfile
from pathlib import Path

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "last.pt"
    state = copy.deepcopy(task.model.state_dict())
    state["head.weight"].zero_()
    torch.save(state, path)
    task.model.load_state_dict(torch.load(path))
optimizer = task.optimizer()
for inputs, targets in task.batches(260):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
