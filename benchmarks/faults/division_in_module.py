"""A normalisation without an epsilon meets a batch in which a column is constant."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))


class Whiten(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        spread = rows.std(0)
        return (rows - rows.mean(0)) / spread


class Whitened(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.front = Whiten()
        self.inner = inner

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.inner(self.front(rows))


model = Whitened(task.model)
optimizer = task.build(model.parameters(), lr=task.rate)
for step, (inputs, targets) in enumerate(task.batches(300)):
    if step == 140:
        inputs[..., 2] = 1.0
    optimizer.zero_grad()
    loss = task.loss(model(inputs), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
