"""A recommender meets an item that its table does not have, at step 120."""

import sys

import torch
from torch import Tensor, nn

torch.manual_seed(int(sys.argv[2]))


class Sessions(nn.Module):
    def __init__(self, pooled: bool) -> None:
        super().__init__()
        self.items = nn.EmbeddingBag(500, 24, sparse=True) if pooled else nn.Embedding(500, 24)
        self.reader = nn.Identity() if pooled else nn.GRU(24, 24, batch_first=True)
        self.head = nn.Linear(24, 500)

    def forward(self, session: Tensor) -> Tensor:
        seen = self.items(session)  # FAULT
        return self.head(seen if isinstance(self.reader, nn.Identity) else self.reader(seen)[0][:, -1])


model = Sessions(sys.argv[1] == "bag")
optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
for step in range(200):
    session = torch.randint(0, 500, (64, 6))
    following = (session[:, -1] + 1) % 500
    if step == 120:
        session[11, 2] = 731
    loss = nn.functional.cross_entropy(model(session), following)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
