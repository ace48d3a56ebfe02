"""From a third of the data on every item takes two milliseconds to decode."""

import sys
import time

import torch
from tasks import make
from torch.utils.data import DataLoader, Dataset

task = make(sys.argv[1], int(sys.argv[2]))


class Decoded(Dataset):
    def __len__(self) -> int:
        return 8192

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        if index > 2000:
            time.sleep(0.002)
        return task.inputs[index % 2048], task.targets[index % 2048]


optimizer = task.optimizer()
for inputs, targets in DataLoader(Decoded(), batch_size=32):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
