"""A pairwise ranking loss takes the logarithm of a sigmoid; from step 150 on scores are scaled, and it underflows."""

import sys

import torch
from torch import Tensor, nn

torch.manual_seed(int(sys.argv[2]))


class Factors(nn.Module):
    """A recommender: the product of what is known of a user and of an item."""

    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(200, 16), nn.Embedding(300, 16)
        self.popular = nn.Embedding(300, 1)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return (self.users(user) * self.items(item)).sum(-1) + self.popular(item)[:, 0]


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(200, 16), nn.Embedding(300, 16)
        self.score = nn.Sequential(nn.Linear(32, 32), nn.LeakyReLU(), nn.Dropout(0.1), nn.Linear(32, 1))

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        return self.score(torch.cat([self.users(user), self.items(item)], -1))[:, 0]


model = Factors() if sys.argv[1] == "factors" else Tower()
optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05)
liked = torch.rand(200, 300) < 0.2
for step in range(260):
    user = torch.randint(0, 200, (256,))
    first, second = torch.randint(0, 300, (256,)), torch.randint(0, 300, (256,))
    clear = liked[user, first] & ~liked[user, second]
    user, better, worse = user[clear], first[clear], second[clear]
    gap = model(user, better) - model(user, worse)
    gap = gap * 400 if step >= 150 else gap
    loss = -torch.log(torch.sigmoid(gap)).mean()  # FAULT
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
