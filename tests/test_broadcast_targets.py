"""Answers across targets: found wherever the difference is written, and pairs that are meant are left alone."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.broadcast_targets import crossed

N = 12
answers = torch.linspace(-1, 1, N)[:, None].clone().requires_grad_()
targets = torch.linspace(0, 2, N)
weights = torch.rand(N)


def kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (-(x - y.T).square()).exp().mean()


def distance(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x - y.T).abs().mean()


WRONG = {
    "written out": lambda: (answers - targets).square().mean(),
    "the other way round": lambda: (targets - answers).pow(2).sum(),
    "absolute": lambda: (answers - targets).abs().mean(),
    "log cosh": lambda: (answers - targets).cosh().log().mean(),
    "its root": lambda: (answers - targets).square().mean().sqrt() + 0.1 * answers.square().mean(),
    "multiplied by itself": lambda: torch.mean((answers - targets) * (answers - targets)),
    "weighted": lambda: torch.mean(weights * (answers - targets) ** 2),
    "mse_loss": lambda: F.mse_loss(answers, targets),
    "mse_loss by entry": lambda: F.mse_loss(answers, targets, reduction="none").mean(),
    "l1_loss": lambda: F.l1_loss(answers, targets),
    "smooth_l1_loss": lambda: F.smooth_l1_loss(answers, targets) + 0.01 * answers.square().sum(),
    "huber_loss": lambda: F.huber_loss(answers, targets),
    "squeezed answers": lambda: F.mse_loss(answers.squeeze(-1), targets[:, None]),
}
MEANT = {
    "one shape": lambda: (answers - targets[:, None]).square().mean(),
    "both squeezed": lambda: F.mse_loss(answers.squeeze(-1), targets),
    "several targets for each answer": lambda: (answers - torch.rand(N, 5)).square().mean(),
    "quantiles": lambda: (answers - torch.rand(5)).abs().mean(),
    "a square of answers": lambda: F.mse_loss(answers * torch.ones(N, N), torch.rand(N, N)),
    "a bias": lambda: (answers * targets - 1.0).square().mean(),
    "ranking": lambda: F.softplus(answers - answers.T).mean(),
    "maximum mean discrepancy": lambda: kernel(answers, answers) - 2 * kernel(answers, targets[:, None]),
    "energy distance": lambda: 2 * distance(answers, targets[:, None]) - distance(answers, answers),
    "a transport plan": lambda: torch.sum(torch.rand(N, N) * (answers - targets).square()),
    "a batch of one": lambda: (answers[:1] - targets[:1]).square().mean(),
}


@pytest.mark.parametrize("name", WRONG)
def test_each_pair_of_an_answer_and_a_target(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of it where a function of its own is called
        found = crossed(WRONG[name](), [])

    assert found is not None
    assert found["pairs"] == str((N, N))
    assert {found["answers"], found["targets"]} == {str((N, 1)), str((N,))}


@pytest.mark.parametrize("name", MEANT)
def test_pairs_that_are_meant_and_shapes_that_fit(name: str) -> None:
    assert crossed(MEANT[name](), []) is None


@pytest.mark.parametrize("wrong", [True, False])
def test_a_regression_is_told_with_its_line(tmp_path, wrong: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    rows = torch.randn(400, 6)
    prices = rows.sum(1) if wrong else rows.sum(1, keepdim=True)
    with attach(model, optimizer, directory=tmp_path):
        for _ in range(12):
            for batch in torch.randperm(400).split(40):
                optimizer.zero_grad()
                loss = ((model(rows[batch]) - prices[batch]) ** 2).mean()
                loss.backward()
                optimizer.step()

    (run,) = tmp_path.iterdir()
    found = [(i.kind, i.cause, i.first_step, i.where) for i in diagnose_directory(run).incidents]
    line = test_a_regression_is_told_with_its_line.__code__.co_firstlineno + 11
    expected = [("miswired", "broadcast_targets", 0)] if wrong else []
    assert [one[:3] for one in found] == expected
    assert all(where.endswith(f"test_broadcast_targets.py:{line}") for *_, where in found)


def test_a_torch_that_does_not_tell_shapes_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torchvitals.hooks.broadcast_targets._shape", lambda node, place: None)

    assert crossed(WRONG["written out"](), []) is None
