"""Message passing over random graphs; from step 130 on some have a node without a neighbour, and its mean is 0/0."""

import sys

import torch
from torch import Tensor, nn

NODES, WIDTH = 12, 24
torch.manual_seed(int(sys.argv[2]))


class MeanOfNeighbours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        messages = edges @ self.mix(nodes)
        return messages / edges.sum(-1, keepdim=True)


class AttentionOverNeighbours(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        scores = self.query(nodes) @ self.key(nodes).transpose(-1, -2) / WIDTH**0.5
        return torch.softmax(scores.masked_fill(edges == 0, float("-inf")), -1) @ self.value(nodes)


class GraphNet(nn.Module):
    def __init__(self, layer: type[nn.Module]) -> None:
        super().__init__()
        self.embed = nn.Linear(5, WIDTH)
        self.pass1, self.pass2 = layer(), layer()
        self.readout = nn.Linear(WIDTH, 3)

    def forward(self, features: Tensor, edges: Tensor) -> Tensor:
        nodes = self.embed(features).relu()
        nodes = nodes + self.pass1(nodes, edges).relu()
        nodes = nodes + self.pass2(nodes, edges).relu()
        return self.readout(nodes.mean(1))


model = GraphNet(MeanOfNeighbours if sys.argv[1] == "mean" else AttentionOverNeighbours)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
criterion = nn.CrossEntropyLoss()
for step in range(240):
    labels = torch.randint(0, 3, (24,))
    features = torch.randn(24, NODES, 5) + 0.5 * labels[:, None, None]
    edges = (torch.rand(24, NODES, NODES) < 0.4).float()
    edges = torch.maximum(edges, torch.eye(NODES).roll(1, 0))
    if step >= 130:
        edges[3, 5] = 0.0
    loss = criterion(model(features, edges), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
