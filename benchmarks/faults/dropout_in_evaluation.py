"""transformers-33844: a functional dropout that does not know of evaluation mode."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))


class Thinned(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(self.inner(rows), 0.2)  # FAULT


model = Thinned(task.model)
optimizer = task.build(model.parameters(), lr=task.rate)
for step, (inputs, targets) in enumerate(task.batches(300)):
    model.train()
    optimizer.zero_grad()
    loss = task.loss(model(inputs), targets)
    loss.backward()
    optimizer.step()
    if step % 100 == 99:
        model.eval()
        with torch.no_grad():
            for start in range(0, 256, 64):
                model(task.inputs[start : start + 64])
