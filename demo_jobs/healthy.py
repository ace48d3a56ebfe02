"""A training that is well, with what alarms naive monitors: warm-up, dropout, clipping, evaluation, a warm restart.

Expected: no incident.
"""

import argparse
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CLASSES = 8


def make_images(count: int, templates: Tensor) -> tuple[Tensor, Tensor]:
    """Noisy copies of a template per class, one in twenty with the wrong label."""
    labels = torch.randint(0, CLASSES, (count,))
    images = templates[labels] + 0.8 * torch.randn(count, 1, 14, 14)
    wrong = torch.rand(count) < 0.05
    return images, torch.where(wrong, torch.randint(0, CLASSES, (count,)), labels)


def build() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(96, CLASSES),
    )


def rate_at(step: int, steps: int) -> float:
    """Warm-up over a tenth, then two cosine cycles."""
    warmup = max(1, steps // 10)
    if step < warmup:
        return (step + 1) / warmup
    cycle = max(1, (steps - warmup) // 2)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * ((step - warmup) % cycle) / cycle))


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of right answers."""
    model.eval()
    with torch.no_grad():
        right = float((model(images).argmax(1) == labels).float().mean())
    model.train()
    return right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    templates = torch.randn(CLASSES, 1, 14, 14)
    train, labels = make_images(4000, templates)
    held_out, answers = make_images(500, templates)
    model = build()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, options.steps))
    for step in range(options.steps):
        rows = torch.randint(0, len(train), (32,))
        loss = F.cross_entropy(model(train[rows]), labels[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"step {step} loss {loss.item():.4g} accuracy {evaluate(model, held_out, answers):.3f}")


if __name__ == "__main__":
    main()
