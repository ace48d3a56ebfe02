"""Mixtures whose router has collapsed, and layers that are left out for other reasons."""

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach

STEPS = 230


class Mixture(nn.Module):
    """``choose`` takes the step, and says which of three experts answers."""

    def __init__(self, choose, router="router"):
        super().__init__()
        self.choose, self.step, self.name = choose, 0, router
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(3))
        self.add_module(router, nn.Linear(6, 3))

    def forward(self, x):
        chosen = self.choose(self.step)
        self.step += 1
        return x + self.experts[chosen](x) * self.get_submodule(self.name)(x).softmax(-1)[:, chosen, None]


def told(directory, model, optimizer=torch.optim.AdamW):
    """(kind, cause, place, first step) of every incident of a training."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), model, nn.Linear(6, 5))
    steps = optimizer(net.parameters(), lr=1e-3)
    with attach(net, steps, directory=directory, overhead=1.0):
        for _ in range(STEPS):
            x = torch.randn(16, 4)
            loss = cross_entropy(net(x), x.argmax(1))
            steps.zero_grad()
            loss.backward()
            steps.step()
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where, i.first_step) for i in diagnose_directory(run).incidents]


def test_experts_that_no_token_reaches(tmp_path):
    found = told(tmp_path, Mixture(lambda _step: 1))

    assert found == [("miswired", "router_collapse", "1.experts.0", 0)]


@pytest.mark.parametrize(
    "model",
    [
        Mixture(lambda step: 0 if step < 195 else step % 3),  # late, and not never
        Mixture(lambda _step: 1, router="out"),  # heads of tasks that this run does not have
    ],
    ids=["late", "heads"],
)
def test_layers_left_out_for_another_reason_are_silent(tmp_path, model):
    assert told(tmp_path, model) == []


def test_without_a_memory_of_the_optimizer_nothing_is_known(tmp_path):
    assert told(tmp_path, Mixture(lambda _step: 1), torch.optim.SGD) == []
