"""The hidden state is detached by mistake: what lies before it never learns."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
first = {"autoencoder": "encoder", "gru": "body", "mlp": "body"}[sys.argv[1]]
optimizer = task.optimizer()


def cut(_module: torch.nn.Module, _inputs: object, output: object) -> object:
    return output.detach() if isinstance(output, torch.Tensor) else tuple(part.detach() for part in output)


task.model.get_submodule(first).register_forward_hook(cut)
for inputs, targets in task.batches(400):
    optimizer.zero_grad()
    loss = task.loss(task.model(inputs), targets)
    loss.backward()
    optimizer.step()
