"""Float16 autocast with a loss scaler, and activations that pass 65504 from step 150 on."""

import sys

import torch
from tasks import make

task = make(sys.argv[1], int(sys.argv[2]))
optimizer = task.optimizer()
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
for step, (inputs, targets) in enumerate(task.batches(360)):
    loud = 1e5 if step >= 150 else 1.0
    with torch.autocast("cpu", dtype=torch.float16):
        scores = task.model(inputs)
        scores = scores * loud
        loss = task.loss(scores.float() / loud, targets)
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
