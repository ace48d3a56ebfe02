"""A training loop that keeps the loss after each step for its report, and with it every activation that led to it.

Must be found: ``memory_leak``, cause ``retained_graph``, at the line that appends. Nothing else.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional


class Classifier(nn.Module):
    """Generated 3 × 24 × 24 pictures into four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(16, 4)

    def forward(self, pictures: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(pictures).flatten(1))
        return logits


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Noise with a bright quadrant; the class is which one."""
    labels = torch.randint(0, 4, (size,))
    pictures = torch.randn(size, 3, 24, 24) * 0.5
    for picture, label in zip(pictures, labels.tolist(), strict=True):
        row, column = divmod(label, 2)
        picture[:, 12 * row : 12 * row + 12, 12 * column : 12 * column + 12] += 0.5
    return pictures, labels


def main() -> None:
    """Train; report the mean loss at the end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses: list[Tensor] = []
    for _ in range(options.steps):
        pictures, labels = batch(16)
        loss = functional.cross_entropy(model(pictures), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        logits = model(pictures)  # how well does it do after the step?
        losses.append(functional.cross_entropy(logits, labels))
    recent = losses[-50:]
    print(f"mean loss of the last {len(recent)} steps: {sum(loss.item() for loss in recent) / len(recent):.3f}")


if __name__ == "__main__":
    main()
