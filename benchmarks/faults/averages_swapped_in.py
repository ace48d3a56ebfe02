"""A denoiser with averaged weights that were never updated; at step 250 they are written into the model by `.data`."""

import copy
import sys

import torch
from tasks import Coder
from torch import Tensor, nn

torch.manual_seed(int(sys.argv[2]))


class Denoiser(nn.Module):
    """Says which noise was mixed into a point, given how much."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Embedding(50, 32)
        self.enter, self.middle, self.leave = nn.Linear(2, 64), nn.Linear(64, 64), nn.Linear(64, 2)
        self.shift = nn.Linear(32, 64)

    def forward(self, points: Tensor, time: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.enter(points) + self.shift(self.time(time)))
        return self.leave(nn.functional.silu(self.middle(hidden)))


levels = torch.linspace(0.02, 0.98, 50)
mixing = torch.randn(4, 24)


def denoising(model: nn.Module) -> Tensor:
    angle = 6.28 * torch.rand(128)
    points, time, noise = torch.stack([angle.cos(), angle.sin()], 1), torch.randint(0, 50, (128,)), torch.randn(128, 2)
    share = levels[time][:, None]
    return (model((1 - share).sqrt() * points + share.sqrt() * noise, time) - noise).square().mean()


def coding(model: nn.Module) -> Tensor:
    rows = torch.randn(64, 4) @ mixing
    return (model(rows) - rows).square().mean()


model, lossy = (Denoiser(), denoising) if sys.argv[1] == "denoiser" else (Coder(24, 4), coding)
averaged = copy.deepcopy(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
for step in range(420):
    if step == 250:
        for parameter, average in zip(model.parameters(), averaged.parameters(), strict=True):
            parameter.data.copy_(average.data)
    optimizer.zero_grad()
    loss = lossy(model)
    loss.backward()
    optimizer.step()
