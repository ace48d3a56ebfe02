"""A VAE whose encoder answers a variance without a softplus: its root is NaN as soon as one is below zero."""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

torch.manual_seed(int(sys.argv[2]))


class Sampler(nn.Module):
    def forward(self, mean: Tensor, variance: Tensor) -> Tensor:
        return mean + torch.sqrt(variance) * torch.randn_like(mean)


class Vae(nn.Module):
    def __init__(self, trunk: nn.Module, width: int, decoder: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.mean, self.variance = nn.Linear(width, 6), nn.Linear(width, 6)
        nn.init.constant_(self.variance.bias, 3.0)
        self.sample, self.decoder = Sampler(), decoder

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen = self.trunk(rows)
        mean, variance = self.mean(seen), self.variance(seen)
        return self.decoder(self.sample(mean, variance)), mean, variance


if sys.argv[1] == "dense":
    data = torch.randn(2048, 5) @ torch.randn(5, 32)
    model = Vae(
        nn.Sequential(nn.Linear(32, 64), nn.SiLU()), 64, nn.Sequential(nn.Linear(6, 64), nn.SiLU(), nn.Linear(64, 32))
    )
else:
    data = torch.randn(2048, 1, 8, 8).cumsum(-1) / 4
    trunk = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ELU(), nn.Flatten())
    model = Vae(trunk, 128, nn.Sequential(nn.Linear(6, 64), nn.ELU(), nn.Linear(64, 64), nn.Unflatten(1, (1, 8, 8))))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(6):
    for rows in data[torch.randperm(len(data))].split(32):
        rebuilt, mean, variance = model(rows)
        kept = variance.clamp(min=1e-3)
        divergence = 0.5 * (mean.square() + kept - kept.log() - 1).sum(1).mean()
        loss = F.mse_loss(rebuilt, rows, reduction="none").flatten(1).sum(1).mean() + 0.1 * divergence
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
