"""Float16 autocast over un-normalised features that grow from day to day until an activation passes 65504.

Expected: one incident of kind ``loss_scale_collapse``, cause ``fp16_overflow``.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Counter(nn.Module):
    """Reads raw event counts; the wide layer sums many of them."""

    def __init__(self, inputs: int = 64, width: int = 64) -> None:
        super().__init__()
        self.pool = nn.Linear(inputs, width)
        self.squash = nn.Linear(width, width)
        self.head = nn.Linear(width, 4)

    def forward(self, counts: Tensor) -> Tensor:
        hidden = F.relu(self.pool(counts))
        energy = hidden * hidden  # the square of a count: beyond 256 it does not fit into float16
        return self.head(torch.tanh(self.squash(energy / (1 + energy.mean()))))  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = Counter()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    scaler = torch.amp.GradScaler("cpu")
    for step in range(options.steps):
        labels = torch.randint(0, 4, (32,))
        volume = 4.0 * 1.04**step  # traffic grows four per cent a step, and nobody scales the counts
        counts = torch.rand(32, 64) * volume * (1 + labels.unsqueeze(1) % 2)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(model(counts), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if step % 20 == 0:
            print(f"step {step} loss {loss.item():.4g} scale {scaler.get_scale():g}")


if __name__ == "__main__":
    main()
