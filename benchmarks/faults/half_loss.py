"""Float16 in the loss itself: from step 140 on the error in cents is weighted beyond 65504, layers being well."""

import sys

import torch
from tasks import ROWS, make
from torch import Tensor, nn

seed = int(sys.argv[2])


class Table(nn.Module):
    """Tabular rows: three categories, each with an embedding, and five figures."""

    def __init__(self) -> None:
        super().__init__()
        self.categories = nn.ModuleList(nn.Embedding(size, 6) for size in (7, 12, 30))
        self.body = nn.Sequential(nn.Linear(18 + 5, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, rows: Tensor) -> Tensor:
        known = [table(rows[:, i].long()) for i, table in enumerate(self.categories)]
        return self.body(torch.cat([*known, rows[:, 3:]], -1))


if sys.argv[1] == "table":
    torch.manual_seed(seed)
    codes = torch.stack([torch.randint(0, size, (ROWS,)) for size in (7, 12, 30)], 1)
    inputs = torch.cat([codes.float(), torch.randn(ROWS, 5)], 1)
    model, targets = Table(), inputs[:, 3:].sum(1, keepdim=True) / 2
else:
    task = make(sys.argv[1], seed)
    model, inputs, targets = task.model, task.inputs, task.targets
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
for step in range(300):
    rows = torch.randint(0, len(inputs), (48,))
    cents = 1e6 if step >= 140 else 1.0
    with torch.autocast("cpu", dtype=torch.float16):
        errors = (model(inputs[rows]) - targets[rows]).half()
        loss = (errors * cents).abs().mean() / cents  # FAULT
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
