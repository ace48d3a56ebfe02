"""Labels of -1 and 1, or masks of 0 and 255, for a binary cross-entropy of scores, which takes them without a word."""

import sys

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

torch.manual_seed(int(sys.argv[2]))
if sys.argv[1] == "tagger":
    words = torch.randint(0, 60, (1500, 12))
    model = nn.Sequential(nn.Embedding(60, 24), nn.Flatten(), nn.Linear(12 * 24, 48), nn.ReLU(), nn.Linear(48, 3))
    labels = torch.stack([2.0 * (words == tag).any(1) - 1 for tag in (3, 5, 8)], 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
else:
    words = torch.randn(600, 1, 16, 16)
    labels = 255.0 * (nn.functional.avg_pool2d(words, 3, 1, 1) > 0.2)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
for _ in range(8):
    for rows in torch.randperm(len(words)).split(32):
        loss = F.binary_cross_entropy_with_logits(model(words[rows]), labels[rows])  # FAULT
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
