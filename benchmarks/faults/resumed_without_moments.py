"""Resumed from a checkpoint of weights, optimizer and schedule, of which the optimizer's state is forgotten."""

import sys
import tempfile
from pathlib import Path

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))


def parts() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    optimizer = torch.optim.Adam(task.model.parameters(), lr=task.rate / 4, betas=(0.9, 0.999))
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1000)


def train(steps: int) -> None:
    for inputs, targets in task.batches(steps):
        optimizer.zero_grad()
        loss = task.loss(task.model(inputs), targets)
        loss.backward()
        optimizer.step()
        schedule.step()


with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "last.pt"
    optimizer, schedule = parts()
    train(150)
    state = {"model": task.model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save({**state, "step": 150}, path)
    saved = torch.load(path)
    optimizer, schedule = parts()
    task.model.load_state_dict(saved["model"])
    schedule.load_state_dict(saved["schedule"])
    train(200)
