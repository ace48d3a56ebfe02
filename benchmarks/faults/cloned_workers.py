"""stackoverflow-67180955, as it is today: every loader worker draws from a copy of one generator."""

import sys
from typing import ClassVar

import numpy as np
import torch
from tasks import make
from torch.utils.data import DataLoader, Dataset


class Crops(Dataset):
    generator: ClassVar[np.random.Generator] = np.random.default_rng(0)

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, _index: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = int(self.generator.integers(0, 2048))
        return task.inputs[row], task.targets[row]


task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
for _epoch in range(2):
    for inputs, targets in DataLoader(Crops(), batch_size=16, num_workers=4):
        optimizer.zero_grad()
        loss = task.loss(task.model(inputs), targets)
        loss.backward()
        optimizer.step()
