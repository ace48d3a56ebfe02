"""Two encoders trained on pairs; the temperature is annealed to exactly zero at step 160."""

import sys

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

torch.manual_seed(int(sys.argv[2]))
if sys.argv[1] == "dense":
    shape = (24,)
    left, right = (nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 16)) for _ in range(2))
else:
    shape = (3, 8, 8)
    left, right = (
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(16)) for _ in range(2)
    )
    left(torch.zeros(1, *shape)), right(torch.zeros(1, *shape))
optimizer = torch.optim.AdamW([*left.parameters(), *right.parameters()], lr=1e-3, weight_decay=0.05)
for step in range(260):
    anchors = torch.randn(48, *shape)
    others = anchors + 0.3 * torch.randn(48, *shape)
    temperature = max(0.0, 0.5 * (1 - step / 160))
    first, second = F.normalize(left(anchors), dim=-1), F.normalize(right(others), dim=-1)
    logits = first @ second.T / temperature  # FAULT
    labels = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
