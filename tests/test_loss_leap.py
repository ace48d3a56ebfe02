"""A loss that leaps on an input as ever: the target, the loss itself, or weights that the last update threw away."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvitals.agent.case import Case
from torchvitals.agent.causes.bad_batch import BadBatch
from torchvitals.agent.causes.rescaled_loss import RescaledLoss
from torchvitals.agent.history import History
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.detector import Finding
from torchvitals.hooks import attach

CHANGE = 300


def incidents(directory, optimizer, loss_of, before_step=lambda optimizer, step: None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.Tanh(), nn.Linear(64, 6))
    optimizer = optimizer(model.parameters())
    weights = torch.randn(12, 6) / 3
    with attach(model, optimizer, directory=directory, overhead=1.0):
        for step in range(420):
            inputs = torch.randn(64, 12)
            loss = loss_of(model(inputs), inputs @ weights + 0.3 * torch.randn(64, 6), step)
            optimizer.zero_grad()
            loss.backward()
            before_step(optimizer, step)
            optimizer.step()
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.cause, i.where, i.first_step) for i in diagnose_directory(run).incidents]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_a_loss_that_is_summed_from_some_step_on_is_no_bad_batch(tmp_path, optimizer):
    def loss_of(answers, targets, step):
        return nn.functional.mse_loss(answers, targets, reduction="sum" if step >= CHANGE else "mean")

    assert incidents(tmp_path, optimizer, loss_of) == [("rescaled_loss", "loss", CHANGE)]


@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_targets_that_are_far_off_are_told_from_a_loss_that_is_multiplied(tmp_path, optimizer):
    def loss_of(answers, targets, step):
        return nn.functional.mse_loss(answers, targets * (1e3 if step >= CHANGE else 1.0))

    assert incidents(tmp_path, optimizer, loss_of) == [("bad_batch", "target", CHANGE)]


def test_second_moments_that_are_cleared_alone_are_no_bad_batch(tmp_path):
    def clear(optimizer, step):
        if step == CHANGE:
            for state in optimizer.state.values():
                state["exp_avg_sq"].zero_()

    found = incidents(tmp_path, adam, lambda answers, targets, step: nn.functional.mse_loss(answers, targets), clear)

    assert found == [("corrupted_optimizer_state", "optimizer", CHANGE)]


def test_moments_that_are_cleared_with_their_step_counts_are_no_fault(tmp_path):
    def renew(optimizer, step):
        if step == CHANGE:
            optimizer.state.clear()

    assert incidents(tmp_path, adam, lambda a, t, step: nn.functional.mse_loss(a, t), renew) == []


def leapt(loss: float, gradient: float) -> Case:
    """A loss of about 1 that leaps at step 90, and the gradient with it."""
    history, noise = History(), np.random.default_rng(0)
    for step in range(95):
        late = step >= 90
        history.add("loss", step, (loss if late else 1.0) * noise.uniform(0.9, 1.1))
        history.add("tripwire_norm", step, (gradient if late else 1.0) * noise.uniform(0.9, 1.1))
        for name, value in (("gradient_norm", 1.0), ("input_absmax", 3.0), ("learning_rate", 0.1)):
            history.add(name, step, value)
    finding = Finding(kind="explosion", severity="critical", first_step=90, step=91, value=loss, threshold=4.0)
    return Case(findings=[finding], history=history, facts={}, events=[])


@pytest.mark.parametrize(
    ("loss", "gradient", "target", "rescaled"),
    [
        (1e3, 1e3, 0.5, 3.0),
        (1e6, 1e3, 3.5, None),
        (1e3, 1.0, 2.0, None),
        (1e3, 3e5, 2.0, None),
        (20.0, 20.0, None, None),
    ],
    ids=["multiplied", "squared", "the gradient as ever", "the gradient by more", "too little"],
)
def test_how_sure_of_the_target_one_is_hangs_on_the_gradient(loss, gradient, target, rescaled):
    case = leapt(loss, gradient)
    opinion, other = BadBatch().weigh(case), RescaledLoss().weigh(case)

    assert (opinion.clues[0].weight if opinion else None) == target
    assert (sum(clue.weight for clue in other.clues) if other else None) == rescaled
