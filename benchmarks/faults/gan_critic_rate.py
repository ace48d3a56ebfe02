"""An adversarial pair whose critic suddenly learns a thousand times too fast."""

import sys

import torch
from tasks import make
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

task = make(sys.argv[1], int(sys.argv[2]))
real = task.inputs.flatten(1)
width = real.shape[1]
generator = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, width))
critic = nn.Sequential(nn.Linear(width, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
for_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.999))
for_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.5, 0.999))
one, nought = torch.ones(32, 1), torch.zeros(32, 1)
for step in range(400):
    if step == 200:
        for_critic.param_groups[0]["lr"] = 2.0
    fake = generator(torch.randn(32, 8))
    batch = real[torch.randint(0, len(real), (32,))]
    loss = binary_cross_entropy_with_logits(critic(batch), one)
    loss = loss + binary_cross_entropy_with_logits(critic(fake.detach()), nought)
    for_critic.zero_grad()
    loss.backward()
    for_critic.step()
    loss = binary_cross_entropy_with_logits(critic(fake), one)
    for_generator.zero_grad()
    loss.backward()
    for_generator.step()
