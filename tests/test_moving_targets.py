"""A critic's loss that grows with what its policy earns is no fault; one beside any other net is."""

from pathlib import Path

import pytest
import torch
from recorded import only_run
from torch import nn
from torchvitals.agent.case import Case
from torchvitals.agent.history import History
from torchvitals.agent.moving_targets import moving_targets
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.detectors.detector import Finding
from torchvitals.hooks import attach

FIRST_REWARD = 40


def pair(directory: Path, *, policy: bool, growth: float = 1.0, steps: int = 160) -> Report:
    """A critic, whose targets are nothing until ``FIRST_REWARD``, beside a policy or beside another net."""
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
    critic = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
    of_actor, of_critic = torch.optim.Adam(actor.parameters(), 1e-3), torch.optim.Adam(critic.parameters(), 5e-3)
    with attach([actor, critic], [of_actor, of_critic], directory=directory, overhead=100.0):  # on a busy machine, too
        for step in range(steps):
            x = torch.randn(32, 6)
            reward = 3.0 * growth ** (step - FIRST_REWARD) if step >= FIRST_REWARD else 0.0
            returns = reward * torch.randint(0, 2, (32, 1))
            advantages = torch.randn(32) if policy else -torch.ones(32)
            of_actor.zero_grad()
            scores = actor(x).log_softmax(1)
            (scores[:, 0] * advantages).mean().backward()
            of_actor.step()
            of_critic.zero_grad()
            (critic(x) - returns).square().mean().backward()
            of_critic.step()
    return diagnose_directory(only_run(directory))


def test_a_critic_of_a_policy_that_finds_a_reward_is_silent_and_the_report_says_why(tmp_path: Path) -> None:
    report = pair(tmp_path, policy=True)

    assert report.incidents == []
    assert any(each.what == "explosion" and "policy" in each.why for each in report.not_checked)


def test_beside_any_other_net_what_was_lost_is_told(tmp_path: Path) -> None:
    assert [incident.kind for incident in pair(tmp_path, policy=False).incidents] == ["explosion"]


def test_a_critic_whose_loss_grows_on_is_told(tmp_path: Path) -> None:
    assert [incident.kind for incident in pair(tmp_path, policy=True, growth=1.05).incidents] == ["explosion"]


def critic(losses: list[float], policy: list[float], rates: list[float] | None = None) -> str:
    history = History()
    for step, (own, other) in enumerate(zip(losses, policy, strict=True)):
        history.add("loss", step, own, 0, 1)
        history.add("loss", step, other, 0, 0)
        history.add("learning_rate", step, (rates or [1e-3] * len(losses))[step], 0, 1)
    opening = Finding(
        kind="divergence", severity="error", first_step=40, step=88, value=0.2, threshold=0.01, rank=0, optimizer=1
    )
    return moving_targets(Case(findings=[opening], history=history, facts={}, events=[]))


CRITIC = [0.003] * 40 + [0.2] * 60


@pytest.mark.parametrize(
    ("policy", "rates", "silent"),
    [
        ([0.1, -0.2] * 50, None, True),
        ([0.7, 0.6] * 50, None, False),
        ([-0.1] * 5 + [0.2] * 95, None, False),
        ([0.1, -0.2] * 50, [1e-3] * 38 + [0.5] * 62, False),
    ],
    ids=["a policy", "another net", "hardly ever negative", "after a leap of the rate"],
)
def test_whose_targets_move(policy: list[float], rates: list[float] | None, silent: bool) -> None:
    assert bool(critic(CRITIC, policy, rates)) is silent
