"""transformers-17877: the special draw of some weights is made again for every module around them."""

import math
import sys

from tasks import make
from torch import nn

task = make(sys.argv[1], int(sys.argv[2]))
SPECIAL = {"mlp": "2.weight", "transformer": "linear2.weight"}[sys.argv[1]]


def fresh(module: nn.Module) -> None:  # FAULT
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.2)
    for name, parameter in module.named_parameters():
        if name.endswith(SPECIAL):
            parameter.data.normal_(std=0.2 / math.sqrt(4))


model = nn.ModuleDict({"net": nn.Sequential(task.model)})
model.apply(fresh)
optimizer = task.build(model.parameters(), lr=task.rate)
for inputs, targets in task.batches(260):
    optimizer.zero_grad()
    loss = task.loss(model["net"](inputs), targets)
    loss.backward()
    optimizer.step()
