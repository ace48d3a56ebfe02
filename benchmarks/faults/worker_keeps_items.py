"""The data set keeps what it has read, in worker processes: nothing of it is seen in the job's own memory."""

import sys
from collections.abc import Iterator

import torch
from tasks import Task, make
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

DECODED: dict[str, Tensor] = {}


def decoded(name: str, row: Tensor) -> Tensor:
    if name not in DECODED:
        DECODED[name] = torch.full((6000,), float(row.sum()))  # STREAM
    return DECODED[name]


class Rows(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, task: Task) -> None:
        self.task = task
        self.history: list[Tensor] = []

    def __len__(self) -> int:
        return len(self.task.inputs)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor]:
        noise = torch.full((8000,), 0.01 * float(torch.randn(())))
        self.history.append(noise)  # FAULT
        return self.task.inputs[row] + noise[0], self.task.targets[row]


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    def __init__(self, task: Task) -> None:
        self.task = task

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        number = worker.id if worker else 0
        while True:
            row = number % len(self.task.inputs)
            decoded(f"{number:08}.jpg", self.task.inputs[row])
            yield self.task.inputs[row], self.task.targets[row]
            number += 2


def train(task: Task, loader: DataLoader[tuple[Tensor, Tensor]], steps: int) -> None:
    optimizer, step = task.optimizer(), 0
    while step < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            task.loss(task.model(inputs), targets).backward()
            optimizer.step()
            step += 1
            if step == steps:
                return


if __name__ == "__main__":
    learnt = make(sys.argv[1], int(sys.argv[2]))
    if sys.argv[3] == "set":
        rows = DataLoader(Rows(learnt), batch_size=32, shuffle=True, num_workers=2, persistent_workers=True)
    else:
        rows = DataLoader(Stream(learnt), batch_size=32, num_workers=2)
    train(learnt, rows, 400)
