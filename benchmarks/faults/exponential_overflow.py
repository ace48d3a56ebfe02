"""An unbounded log-variance: one batch drives exp beyond float32."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
rows = task.inputs.flatten(1)
width = rows.shape[1]


class Variational(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(width, 32), nn.ReLU())
        self.mean, self.spread = nn.Linear(32, 4), nn.Linear(32, 4)
        self.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, width))

    def forward(self, batch: torch.Tensor, shift: float) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.encoder(batch)
        mean, spread = self.mean(hidden), self.spread(hidden) + shift
        code = mean + torch.exp(spread) * torch.randn_like(mean)
        return self.decoder(code), mean.square().mean()


model = Variational()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(300):
    batch = rows[torch.randint(0, len(rows), (32,))]
    again, prior = model(batch, 120.0 if step == 150 else -2.0)
    loss = (again - batch).square().mean() + 1e-3 * prior
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
