"""A regression with a learnt scale layer: the logarithm of a batch variance that, for one kind of batch, is zero.

Expected: one incident of kind ``nonfinite``, cause ``numerical_domain_error``, in the module ``spread``.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class LogSpread(nn.Module):
    """Adds the logarithm of each feature's variance over the batch as a summary of the batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        variance = hidden.var(dim=0, keepdim=True)
        summary = torch.log(variance)  # no epsilon: 0 when every row of the batch is the same
        mixed: Tensor = hidden + self.mix(summary)
        return mixed


class Regressor(nn.Module):
    """An encoder, the spread layer, and a head."""

    def __init__(self, inputs: int = 12, width: int = 64) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width))
        self.spread = LogSpread(width)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        predicted: Tensor = self.head(self.spread(self.encode(inputs)))
        return predicted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    model = Regressor()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = torch.randn(12, 1)
    stuck = options.steps * 2 // 3
    for step in range(options.steps):
        inputs = torch.randn(32, 12)
        if step == stuck:  # a sensor repeats its last reading for a whole batch: valid numbers, no variance
            inputs = inputs[:1].expand(32, 12)
        target = torch.sin(inputs @ weights)
        loss = F.mse_loss(model(inputs), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4g}")


if __name__ == "__main__":
    main()
