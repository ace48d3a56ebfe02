"""Plain DDP under torchrun: a small convolutional net with batch norm, a distributed sampler, a schedule by epochs."""

import argparse
import json
import os

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


def build(width):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, 4),
    )


def dataset(count):
    """Noisy images with one bright quarter, which is the class."""
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (count,), generator=generator)
    images = 0.5 * torch.randn(count, 1, 8, 8, generator=generator)
    for label in range(4):
        row, column = 4 * (label // 2), 4 * (label % 2)
        images[labels == label, :, row : row + 4, column : column + 4] += 0.5
    return TensorDataset(images, labels)


def evaluate(model, loader):
    model.eval()
    right = torch.zeros(2)
    with torch.no_grad():
        for images, target in loader:
            right += torch.tensor([(model(images).argmax(1) == target).sum(), len(target)])
    dist.all_reduce(right)
    model.train()
    return (right[0] / right[1]).item()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--accumulate", type=int, default=1)
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    torch.manual_seed(rank)
    model = DDP(build(8))
    data = dataset(768)
    sampler = DistributedSampler(data, shuffle=True)
    loader = DataLoader(data, batch_size=16, sampler=sampler, num_workers=0, drop_last=True)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.1)
    logged = {"loss": [], "gradient_norm_unclipped": [], "learning_rate": [], "accuracy": []}
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        total = 0.0
        for i, (images, target) in enumerate(loader):
            last = (i + 1) % args.accumulate == 0
            model.require_backward_grad_sync = last
            loss = criterion(model(images), target) / args.accumulate
            loss.backward()
            total += loss.item()
            if not last:
                continue
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            logged["loss"].append(total)
            logged["gradient_norm_unclipped"].append(norm.item())
            logged["learning_rate"].append(scheduler.get_last_lr()[0])
            total = 0.0
        scheduler.step()
        logged["accuracy"].append(evaluate(model, loader))
        if rank == 0:
            torch.save(model.module.state_dict(), "model.pt")
            print(f"epoch {epoch}: accuracy {logged['accuracy'][-1]:.3f}")
        dist.barrier()
    with open(f"logged.{os.environ['RANK']}.json", "w") as file:
        json.dump(logged, file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
