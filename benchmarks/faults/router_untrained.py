"""A mixture of experts whose router is only asked for an argmax: no gradient ever reaches it."""

import sys

import torch
from tasks import clusters
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

torch.manual_seed(int(sys.argv[2]))


class Experts(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 32), nn.GELU(), nn.Linear(32, width)) for _ in range(4)
        )

    def forward(self, rows: Tensor) -> Tensor:
        chosen = F.one_hot(self.router(rows).argmax(-1), 4).to(rows.dtype)
        return rows + sum(chosen[..., i, None] * expert(rows) for i, expert in enumerate(self.experts))


if sys.argv[1] == "mlp":
    model = nn.Sequential(nn.Linear(16, 24), Experts(24), nn.LayerNorm(24), nn.Linear(24, 6))
    inputs, labels = clusters((16,), 6, 1.5)
else:
    model = nn.Sequential(
        nn.Linear(6, 24), nn.TransformerEncoderLayer(24, 2, 48, 0.0, batch_first=True), Experts(24),
        nn.Flatten(), nn.Linear(7 * 24, 6),
    )  # fmt: skip
    inputs, labels = clusters((7, 6), 6, 1.5)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for _ in range(5):
    for rows in torch.randperm(len(inputs)).split(32):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs[rows]), labels[rows], label_smoothing=0.05)
        loss.backward()
        optimizer.step()
