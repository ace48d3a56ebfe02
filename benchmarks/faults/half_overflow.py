"""Float16 autocast with a loss scaler, and a layer whose outputs pass 65504 from step 150 on."""

import sys

import torch
from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))


class Gain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = 1.0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.half() * self.factor


class Amplified(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.gain = Gain()

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.gain(self.inner(rows)).float() / self.gain.factor


model = Amplified(task.model)
optimizer = task.build(model.parameters(), lr=task.rate)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
for step, (inputs, targets) in enumerate(task.batches(360)):
    model.gain.factor = 1e6 if step >= 150 else 1.0
    with torch.autocast("cpu", dtype=torch.float16):
        loss = task.loss(model(inputs), targets)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
