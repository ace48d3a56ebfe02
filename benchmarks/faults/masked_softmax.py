"""Attention pooling over a mask that hides every position of one row."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
features = task.inputs.shape[-1]
outputs = int(task.targets.max()) + 1 if not task.targets.is_floating_point() else 1


class Pool(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)

    def forward(self, hidden: torch.Tensor, hidden_from: torch.Tensor) -> torch.Tensor:
        scores = self.score(hidden).squeeze(-1).masked_fill(hidden_from, float("-inf"))
        shares = torch.softmax(scores, -1)
        return (shares[..., None] * hidden).sum(1)


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(features, 32)
        self.pool = Pool(32)
        self.head = nn.Linear(32, outputs)

    def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(torch.relu(self.embed(rows)), mask))


model = Reader()
optimizer = task.build(model.parameters(), lr=task.rate)
for step, (inputs, targets) in enumerate(task.batches(300)):
    mask = torch.rand(inputs.shape[:2]) < 0.1
    mask[:, 0] = False
    if step == 160:
        mask[7] = True
    loss = task.loss(model(inputs, mask), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
