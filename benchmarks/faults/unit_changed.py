"""A service: one of its inputs arrives in another unit from request 600 on."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
model = task.model.eval()
with torch.inference_mode():
    for request, (inputs, _) in enumerate(task.batches(1200, size=8)):
        rows = inputs.clone()
        if request >= 600:
            rows[..., 3] = rows[..., 3] * 25.4
        model(rows)
