"""mmpretrain-702: the model freezes its body in ``train()``, which nobody calls before the first validation is over."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))


class Staged(nn.Module):
    def __init__(self, inner: nn.Module, frozen_stages: int) -> None:
        super().__init__()
        self.inner, self.frozen_stages = inner, frozen_stages

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.inner(rows)

    def _freeze_stages(self) -> None:
        if self.frozen_stages > 0:
            self.inner.body.eval()
            for parameter in self.inner.body.parameters():
                parameter.requires_grad = False

    def train(self, mode: bool = True) -> "Staged":
        super().train(mode)
        self._freeze_stages()
        return self


model = Staged(task.model, frozen_stages=1)
optimizer = task.build(model.parameters(), lr=task.rate)
for epoch in range(4):
    if epoch:
        model.train()
    for inputs, targets in task.batches(80):
        optimizer.zero_grad()
        loss = task.loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        for start in range(0, 512, 64):
            model(task.inputs[start : start + 64])
