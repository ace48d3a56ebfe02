"""Layers that nothing leads back to from the loss, and layers that are not asked."""

import pytest
import torch
from torch import nn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach


class Cut(nn.Module):
    """A first layer whose answers leave the graph, or one that is not asked, before a body that learns."""

    def __init__(self, asked):
        super().__init__()
        self.front, self.body = (
            nn.Linear(4, 4),
            nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, 2)),
        )
        self.asked = asked

    def forward(self, x):
        return self.body(torch.from_numpy(self.front(x).detach().numpy()) if self.asked else x)


@pytest.mark.parametrize("asked", [True, False])
def test_a_first_layer_whose_answers_leave_the_graph_is_told_and_one_that_is_not_asked_is_not(tmp_path, asked):
    torch.manual_seed(0)
    model = Cut(asked)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(12):
            x = torch.randn(16, 4)
            optimizer.zero_grad()
            (model(x) - x[:, :2]).square().mean().backward()
            optimizer.step()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]

    told = [(i.kind, i.cause, i.where) for i in diagnose_directory(run).incidents]

    assert told == ([("stuck_parameters", "frozen_parameters", "front")] if asked else [])
