"""Two ranks that stop being the same model: rank 0 logs the gradient norm with a function that also clips.

A character transformer learns to add, data-parallel over the processes that torchrun starts. Every fortieth step
rank 0 prints the gradient norm, which it takes from ``clip_grad_norm_`` because that returns it. On that step
rank 0 applies clipped gradients and the others do not. The loss looks well on every rank; the replicas are no
longer one model, and the checkpoint of rank 0 is not what the others have been training.

Expected: ``desync``, cause ``rank_local_update``. Not expected: anything about the loss or the gradients.
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

ALPHABET = "0123456789+=. "
LENGTH = 16
LOG_EVERY = 40


def sums(count: int, generator: torch.Generator) -> Tensor:
    """``count`` lines such as ``417+38=455.``, as indices of the alphabet, padded to a common length."""
    numbers = torch.randint(0, 1000, (count, 2), generator=generator).tolist()
    lines = [f"{a}+{b}={a + b}.".ljust(LENGTH) for a, b in numbers]
    return torch.tensor([[ALPHABET.index(character) for character in line] for line in lines])


class Transformer(nn.Module):
    """A causal language model of two layers."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.tokens = nn.Embedding(len(ALPHABET), width)
        self.places = nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, len(ALPHABET))

    def forward(self, text: Tensor) -> Tensor:
        length = text.shape[1]
        hidden = self.tokens(text) + self.places(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        logits: Tensor = self.head(self.layers(hidden, mask=mask, is_causal=True))
        return logits


def train(steps: int, rank: int) -> None:
    torch.manual_seed(0)
    data = TensorDataset(sums(4096, torch.Generator().manual_seed(1)))
    sampler: DistributedSampler[tuple[Tensor, ...]] = DistributedSampler(data, seed=2)
    loader = DataLoader(data, batch_size=32, sampler=sampler, drop_last=True)
    model = DistributedDataParallel(Transformer())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    step = 0
    for epoch in range(1 + steps // len(loader)):
        sampler.set_epoch(epoch)
        for (text,) in loader:
            logits = model(text[:, :-1])
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            step += 1
            if rank == 0 and step % LOG_EVERY == 0:
                norm = nn.utils.clip_grad_norm_(model.parameters(), 0.25)
                print(f"step {step} loss {loss.item():.3f} gradient norm {norm.item():.3f}")
            optimizer.step()
            if step == steps:
                return


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=200)
    steps = arguments.parse_args().steps
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    train(steps, int(os.environ["RANK"]))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
