"""A small transformer on generated text whose schedule multiplies where it should divide: the loss explodes.

Expected: one incident of kind ``explosion``, cause ``learning_rate_too_high``, at the step of the milestone.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SYMBOLS, LENGTH = 27, 32


class Characters(nn.Module):
    """A causal transformer over characters."""

    def __init__(self, width: int = 48, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, width)
        self.position = nn.Parameter(0.02 * torch.randn(LENGTH, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, SYMBOLS)

    def forward(self, text: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        hidden: Tensor = self.head(self.blocks(self.embed(text) + self.position, mask=mask, is_causal=True))
        return hidden


def write_text(length: int) -> Tensor:
    """Words of a random vocabulary, with spaces between."""
    vocabulary = [torch.randint(0, 26, (int(torch.randint(2, 8, ())),)) for _ in range(60)]
    picked = [vocabulary[int(torch.randint(0, 60, ()))] for _ in range(length // 4)]
    return torch.cat([torch.cat([word, torch.tensor([26])]) for word in picked])[:length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    text = write_text(20_000)
    model = Characters()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    # The second half was to go on at a hundredth of the rate; gamma=100 multiplies by a hundred instead.
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[options.steps // 2], gamma=100)
    for step in range(options.steps):
        starts = torch.randint(0, len(text) - LENGTH - 1, (16,))
        window = torch.stack([text[start : start + LENGTH + 1] for start in starts])
        loss = F.cross_entropy(model(window[:, :-1]).flatten(0, 1), window[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            print(f"step {step} loss {loss.item():.4g} rate {schedule.get_last_lr()[0]:g}")


if __name__ == "__main__":
    main()
