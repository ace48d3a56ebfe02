"""Sixty samples of noise, learnt by heart while the validation loss rises."""

import sys

import torch
from tasks import make
from torchvitals.hooks import attach

task = make(sys.argv[1], int(sys.argv[2]))
train = (torch.randn_like(task.inputs[:64]), task.targets[:64])
held_out = (torch.randn_like(task.inputs[64:512]), task.targets[64:512])
optimizer = torch.optim.Adam(task.model.parameters(), lr=3e-3)
monitor = attach(task.model, optimizer)
for _epoch in range(100):
    task.model.train()
    for start in range(0, 64, 16):
        loss = task.loss(task.model(train[0][start : start + 16]), train[1][start : start + 16])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.model.eval()
    with torch.no_grad():
        monitor.log(validation_loss=task.loss(task.model(held_out[0]), held_out[1]).item())
