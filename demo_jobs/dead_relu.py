"""A convolutional net whose last hidden layer dies: its thresholds are calibrated on images nobody normalised.

The net learns to tell generated textures apart. After a while the job makes the hidden layer sparse: it raises
each unit's threshold so that only the strongest images make it fire. But the calibration reads the raw images,
0 to 255, where training reads normalised ones. The thresholds come out a hundred times too high, no unit ever
fires again, and a ReLU that never fires gets no gradient. The job runs on to the end with a loss that says nothing
but chance.

Expected: ``dead_relu`` at the hidden layer, cause ``dying_relu``. Not expected: anything before the calibration.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (torch's own name for it)

SIZE = 16
CLASSES = 6
QUARTILE = 0.75


def textures(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``count`` grey images of stripes in one of six directions, 0 to 255, and their classes."""
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    angle = (labels * torch.pi / CLASSES)[:, None, None]
    phase = 2 * torch.pi * torch.rand(count, 1, 1, generator=generator)
    across = torch.arange(SIZE)[None, None, :] * torch.cos(angle) + torch.arange(SIZE)[None, :, None] * torch.sin(angle)
    stripes = torch.sin(1.3 * across + phase) + 0.7 * torch.randn(count, SIZE, SIZE, generator=generator)
    return (127 + 50 * stripes).clamp(0, 255)[:, None], labels


def normalised(images: Tensor) -> Tensor:
    """Zero mean and unit spread, as the net is trained on."""
    return (images - 127) / 60


class TextureNet(nn.Module):
    """Two convolutions, a hidden layer and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 5, padding=2)
        self.conv2 = nn.Conv2d(12, 24, 3, padding=1)
        self.hidden = nn.Linear(24 * (SIZE // 4) ** 2, 64)
        self.classify = nn.Linear(64, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        pooled: Tensor = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return pooled.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classify(F.relu(self.hidden(self.features(images))))
        return logits


@torch.no_grad()
def make_sparse(net: TextureNet, images: Tensor) -> None:
    """Raise each hidden unit's threshold to a spread above the upper quartile of its inputs over ``images``."""
    before = net.hidden(net.features(images))
    net.hidden.bias.sub_(torch.quantile(before, QUARTILE, dim=0).clamp(min=0) + before.std(dim=0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)

    images, labels = textures(4096, generator)
    net = TextureNet()
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    sparse_from = arguments.steps * 2 // 5

    for step in range(arguments.steps):
        if step == sparse_from:
            make_sparse(net, images[:512])  # the bug: normalised(images[:512]) is what the net is used to
        chosen = torch.randint(0, len(images), (64,), generator=generator)
        loss = F.cross_entropy(net(normalised(images[chosen])), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:4d}  loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
