"""A GAN with two networks and two optimizers, trained in turn; the discriminator's loss comes in two backward passes."""

import argparse
import json
import random

import torch
from torch import nn, optim

parser = argparse.ArgumentParser()
parser.add_argument("--niter", type=int, default=180)
parser.add_argument("--nz", type=int, default=8)
parser.add_argument("--lr", type=float, default=0.0005)
opt = parser.parse_args()

manualSeed = 999
random.seed(manualSeed)
torch.manual_seed(manualSeed)


def weights_init(m):
    classname = m.__class__.__name__
    if classname.find("Conv") != -1:
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif classname.find("BatchNorm") != -1:
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(opt.nz, 16, 3, 1, 0, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(True),
            nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False),
            nn.Tanh(),
        )

    def forward(self, input):
        return self.main(input)


class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(8, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 1, 3, 1, 0, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, input):
        return self.main(input).view(-1)


def real_images(count):
    """Bright discs somewhere on a dark 12 × 12 ground."""
    grid = torch.arange(12.0)
    cx, cy, r = (low + (high - low) * torch.rand(count, 1, 1) for low, high in ((3, 8), (3, 8), (1.5, 3)))
    distance = ((grid[None, :, None] - cx) ** 2 + (grid[None, None, :] - cy) ** 2).sqrt()
    return (2 * torch.sigmoid(3 * (r - distance)) - 1 + 0.05 * torch.randn(count, 12, 12)).unsqueeze(1)


netG = Generator()
netG.apply(weights_init)
netD = Discriminator()
netD.apply(weights_init)
criterion = nn.BCELoss()
fixed_noise = torch.randn(16, opt.nz, 1, 1)
optimizerD = optim.Adam(netD.parameters(), lr=opt.lr, betas=(0.5, 0.999))
optimizerG = optim.Adam(netG.parameters(), lr=opt.lr, betas=(0.5, 0.999))


def norm(net):
    return torch.stack([p.grad.norm() for p in net.parameters()]).norm().item()


logged = {"loss": [[], []], "gradient_norm": [[], []]}
for i in range(opt.niter):
    netD.zero_grad()
    real = real_images(32)
    label = torch.full((32,), 0.9)
    errD_real = criterion(netD(real), label)
    errD_real.backward()
    fake = netG(torch.randn(32, opt.nz, 1, 1))
    label.fill_(0.0)
    errD_fake = criterion(netD(fake.detach()), label)
    errD_fake.backward()
    errD = errD_real + errD_fake
    logged["gradient_norm"][0].append(norm(netD))
    optimizerD.step()

    netG.zero_grad()
    label.fill_(1.0)
    errG = criterion(netD(fake), label)
    errG.backward()
    logged["gradient_norm"][1].append(norm(netG))
    optimizerG.step()

    logged["loss"][0].append(errD.item())
    logged["loss"][1].append(errG.item())
    if i % 60 == 0:
        print(f"[{i}/{opt.niter}] Loss_D: {errD.item():.4f} Loss_G: {errG.item():.4f}")
        with torch.no_grad():
            netG(fixed_noise)

with open("logged.json", "w") as file:
    json.dump(logged, file)
