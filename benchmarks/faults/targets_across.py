"""Answers of shape (n, 1) and targets of shape (n,): each answer is compared with the targets of the whole batch."""

import sys

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

torch.manual_seed(int(sys.argv[2]))
states = torch.randn(1200, 6)
if sys.argv[1] == "regressor":
    model = nn.Sequential(nn.Linear(6, 32), nn.SiLU(), nn.Linear(32, 1))
    prices = states @ torch.randn(6) + 0.1 * torch.randn(1200)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(8):
        for rows in torch.randperm(1200).split(40):
            difference = model(states[rows]) - prices[rows]  # FAULT
            optimizer.zero_grad()
            (difference**2).mean().backward()
            optimizer.step()
else:
    actions, rewards = torch.randint(0, 3, (1200,)), torch.rand(1200)
    model = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 3))
    target = nn.Sequential(nn.Linear(6, 48), nn.ReLU(), nn.Linear(48, 3)).requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(250):
        if step % 50 == 0:
            target.load_state_dict(model.state_dict())
        rows = torch.randint(0, 1199, (32,))
        chosen = model(states[rows]).gather(1, actions[rows, None])
        aim = rewards[rows] + 0.9 * target(states[rows + 1]).amax(1)
        loss = F.smooth_l1_loss(chosen, aim)  # CRITIC
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
