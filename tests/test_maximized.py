"""A loss that is made large: read off its graph and its course, and told apart from games, attacks and likelihoods."""

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div, l1_loss, mse_loss
from torchvitals.agent.case import Case
from torchvitals.agent.causes.maximized_loss import MaximizedLoss
from torchvitals.agent.history import History
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.detector import Finding
from torchvitals.hooks import attach
from torchvitals.hooks.loss_sign import turned

STEPS = 160


def net(outputs=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, outputs))


def rows():
    inputs = torch.randn(32, 8)
    return inputs, inputs[:, :4].argmax(1)


def told(directory, models, optimizers, train):
    with attach(models, optimizers, directory=directory, overhead=1.0):
        for _ in range(STEPS):
            train()
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where) for i in diagnose_directory(run).incidents]


@pytest.mark.parametrize("weigh", [lambda loss: -loss, lambda loss: loss * -0.5, lambda loss: 1 - loss])
def test_a_turned_sign_is_told_with_its_line(tmp_path, weigh):
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def train():
        inputs, labels = rows()
        optimizer.zero_grad()
        weigh(cross_entropy(model(inputs), labels)).backward()
        optimizer.step()

    ((kind, cause, where),) = told(tmp_path, model, optimizer, train)

    assert (kind, cause) == ("divergence", "maximized_loss")
    assert "test_maximized.py:" in where


def test_an_optimizer_that_maximises_is_to_blame_itself(tmp_path):
    model = net(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, maximize=True)

    def train():
        inputs, _ = rows()
        optimizer.zero_grad()
        mse_loss(model(inputs), inputs[:, :1]).backward()
        optimizer.step()

    incidents = told(tmp_path, model, optimizer, train)

    assert [(cause, where) for _, cause, where in incidents] == [("maximized_loss", "optimizer")]


def test_a_generator_that_makes_its_critic_s_loss_large_plays_a_game(tmp_path):
    generator, critic = net(8), net(1)
    first = torch.optim.Adam(critic.parameters(), lr=1e-3)
    second = torch.optim.Adam(generator.parameters(), lr=0.02)

    def train():
        real, noise = rows()[0], torch.randn(32, 8)
        first.zero_grad()
        answers = critic(torch.cat([real, generator(noise).detach()]))
        binary_cross_entropy_with_logits(answers, torch.cat([torch.ones(32, 1), torch.zeros(32, 1)])).backward()
        first.step()
        second.zero_grad()
        (-binary_cross_entropy_with_logits(critic(generator(noise)), torch.zeros(32, 1))).backward()
        second.step()

    assert "maximized_loss" not in [
        cause for _, cause, _ in told(tmp_path, [generator, critic], [first, second], train)
    ]


def test_an_attack_moves_its_noise_and_not_the_model(tmp_path):
    model, noise = net(), nn.Parameter(torch.zeros(32, 8))
    optimizer = torch.optim.Adam([noise], lr=0.1)
    inputs, labels = rows()

    def train():
        optimizer.zero_grad()
        (-cross_entropy(model(inputs + noise), labels)).backward()
        optimizer.step()

    assert told(tmp_path, model, optimizer, train) == []


def test_the_sign_of_what_cannot_be_below_zero_is_read_off_the_graph():
    scores, labels = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    loss = cross_entropy(scores, labels)
    error = ((scores - 1) ** 2).mean()
    returns = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.5, -0.5])

    assert turned(loss) == turned(loss / 3 + error) == (1, "nll_loss")
    assert turned(-1 * loss) == turned(0 - loss) == turned(-torch.stack([loss, loss]).mean()) == (-1, "nll_loss")
    assert turned(-l1_loss(scores, scores.detach() + 1)) == (-1, "abs")
    # a balance, a policy weighted by its returns, a variance that is to grow, an entropy
    assert turned(loss - error) is None
    assert turned((cross_entropy(scores, labels, reduction="none") * returns).mean()) is None
    assert turned(-(scores**2).mean()) is None
    assert turned(-(scores.softmax(1) * scores.log_softmax(1)).sum(1).mean()) is None


def test_the_sign_of_log_probabilities_is_read_off_the_graph():
    scores, labels = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    shares, logs = torch.rand(6, 3).softmax(1), scores.log_softmax(1)
    smoothed = cross_entropy(scores, labels, label_smoothing=0.1)
    losses = [
        smoothed,
        cross_entropy(scores, shares),
        -(logs * shares).sum(1).mean(),
        kl_div(logs, shares, reduction="batchmean"),
    ]

    assert [turned(loss)[0] for loss in losses] == [1] * 4
    assert [turned(-loss)[0] for loss in losses] == [turned((shares * logs).sum())[0], -1, -1, -1] == [-1] * 4
    # what is paid for each class, and an action's log-probability weighted by its cost
    assert turned((logs * torch.rand(6, 3)).sum()) is None
    assert turned((logs.gather(1, labels[:, None]).squeeze(1) * torch.rand(6)).mean()) is None


def test_log_probabilities_of_the_labels_may_be_picked_and_not_weighted():
    scores, labels = torch.randn(6, 3, requires_grad=True), torch.tensor([0, 1, 2, 0, 1, 2])
    logs = scores.log_softmax(1)
    picked = [logs[torch.arange(6), labels], logs.gather(1, labels[:, None]).squeeze(1)]

    assert [turned(each.mean())[0] for each in picked] == [-1, -1]
    assert [turned(-each.sum() / 6)[0] for each in picked] == [1, 1]
    # an action, and what it has cost so far
    assert [turned((-each * -50.0).mean()) for each in picked] == [None, None]


def gaussians():
    """Log-likelihoods of a Gaussian whose spread is learnt, as people write them."""
    answers, labels = nn.Linear(3, 2)(torch.randn(6, 3)), torch.randn(6, 1)
    mean, log = answers.chunk(2, -1)
    log = log.clamp(-4, 4)
    normal = torch.distributions.Normal
    return [
        -0.5 * (log + (labels - mean) ** 2 / log.exp()).mean(),
        -(0.5 * log + 0.5 * (labels - mean).pow(2) * (-log).exp()).sum(),
        normal(mean, (log / 2).exp()).log_prob(labels).mean(),
        normal(mean, nn.functional.softplus(log) + 1e-3).log_prob(labels).sum(-1).mean(),
    ]


def test_the_sign_of_a_gaussian_likelihood_is_read_off_the_graph():
    assert [turned(likelihood)[0] for likelihood in gaussians()] == [-1] * 4
    assert [turned(-likelihood)[0] for likelihood in gaussians()] == [1] * 4
    answers, returns = nn.Linear(3, 2)(torch.randn(6, 3)), torch.randn(6, 1)
    mean, log = answers.chunk(2, -1)
    divergence = -0.5 * (1 + log - mean**2 - log.exp()).mean()
    chosen = torch.distributions.Normal(mean, log.exp()).log_prob(torch.randn(6, 1))
    # a distance from the prior, a policy weighted by its returns, a spread that nobody learns beside another term
    assert turned(divergence) is None
    assert turned(-(chosen * returns).mean()) is None
    assert turned(log.mean() - (mean - returns).pow(2).mean()) is None


def test_a_likelihood_that_is_minimised_is_told(tmp_path):
    model = net(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)

    def train(sign=1.0):
        inputs, _ = rows()
        mean, log = model(inputs).chunk(2, -1)
        optimizer.zero_grad()
        (
            sign * torch.distributions.Normal(mean, (log.clamp(-4, 4) / 2).exp()).log_prob(inputs[:, :1]).mean()
        ).backward()
        optimizer.step()

    ((kind, cause, where),) = told(tmp_path / "turned", model, optimizer, train)

    assert (kind, cause) == ("divergence", "maximized_loss")
    assert "test_maximized.py:" in where
    model = net(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    assert told(tmp_path / "well", model, optimizer, lambda: train(-1.0)) == []


@pytest.mark.parametrize(("after", "speaks"), [(-1.5, True), (1.5, False)])
def test_an_explosion_downwards_is_no_rate_that_is_too_high(after, speaks):
    history = History()
    for step in range(60):
        history.add("loss", step, -1.0 if step < 30 else after ** (2 * (step - 30) + 1))
    finding = Finding(kind="explosion", severity="error", first_step=30, step=50, value=1e3, threshold=9.0)

    opinion = MaximizedLoss().weigh(Case(findings=[finding], history=history, facts={}, events=[]))

    assert (opinion is not None) is speaks


def test_a_sign_that_turned_on_the_way_is_dated_to_its_step():
    evidence = {"signal": "loss_sign", "level_before": 2.0}
    finding = Finding(
        kind="divergence", severity="error", first_step=90, step=150, value=-80.0, threshold=-10.0, evidence=evidence
    )

    opinion = MaximizedLoss().weigh(Case(findings=[finding], history=History(), facts={}, events=[]))

    assert opinion is not None
    assert (opinion.first_step, opinion.clues[0].weight > 2) == (90, True)
