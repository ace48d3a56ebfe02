"""The validation loss is found where the job keeps it, and nothing else is taken for it."""

import pytest
import torch
from torch import nn
from torchvitals.hooks.taps import tapped_code
from torchvitals.hooks.validation import LOOKS, ValidationLoss


class Net(nn.Linear):
    def forward(self, x, labels=None):
        logits = super().forward(x)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def evaluate(validation, net, batches, *, labels=None):
    net.eval()
    with torch.no_grad():
        for x in batches:
            validation.evaluated(net, net(x, labels))
    net.train()


def step(validation, *, logged=False):
    return validation.take(logged=logged)


def test_the_mean_of_the_losses_that_the_model_gave():
    validation, net = ValidationLoss(), Net(4, 3)
    x, labels = torch.randn(2, 8, 4), torch.randint(3, (8,))
    evaluate(validation, net, x, labels=labels)
    expected = sum(net(part, labels)["loss"].item() for part in x) / 2
    assert step(validation) == pytest.approx(expected)
    assert step(validation) is None  # no evaluation since


def test_a_number_that_is_named_so_in_the_frame_that_trains():
    validation, net = ValidationLoss(), Net(4, 3)
    told = []
    for epoch in range(3):
        evaluate(validation, net, torch.randn(2, 8, 4))
        val_loss = 0.5 + epoch
        told.append(step(validation))
    evaluate(validation, net, torch.randn(1, 8, 4))  # and the job has not computed it anew
    told.append(step(validation))
    assert told == [0.5, 1.5, 2.5, None]
    assert val_loss == 2.5


class Trainer:
    def __init__(self):
        self.history = {"train_loss": [], "val_loss": []}

    def fit(self, validation, net):
        evaluate(validation, net, torch.randn(1, 8, 4))
        self.history["val_loss"].append(torch.tensor(0.25))
        return self.step(validation)

    def step(self, validation):
        return step(validation)


def test_a_history_that_the_trainer_keeps():
    assert Trainer().fit(ValidationLoss(), Net(4, 3)) == 0.25


def test_a_policy_at_play_and_what_the_job_logs_itself_are_left_alone():
    validation, net = ValidationLoss(), Net(4, 3)
    val_loss = 1.0
    with torch.no_grad():
        validation.evaluated(net, net(torch.randn(2, 4)))  # in training mode: a rollout
    assert step(validation) is None
    evaluate(validation, net, torch.randn(1, 8, 4))
    assert step(validation, logged=True) is None
    evaluate(validation, net, torch.randn(1, 8, 4))
    assert step(validation) is None
    assert val_loss == 1.0


def test_a_job_that_keeps_no_such_number_is_searched_a_few_times_only():
    validation, net = ValidationLoss(), Net(4, 3)
    told = []
    for _ in range(6):
        evaluate(validation, net, torch.randn(1, 8, 4))
        told.append(step(validation))
    evaluate(validation, net, torch.randn(1, 8, 4))
    val_loss = 3.0
    told.append(step(validation))
    assert told == [None] * 7
    assert val_loss == 3.0


def held_out_loss(validation, net, data, labels, loss):
    """In one expression: Python looks ``loss`` up before it calls the net."""
    net.eval()
    with torch.no_grad():
        losses = [loss(answered(validation, net, part), labels) for part in data]
    net.train()
    return sum(float(each) for each in losses) / len(losses)


def answered(validation, net, part):
    output = net(part)
    validation.evaluated(net, output)
    return output["logits"]


@pytest.mark.parametrize("loss", [None, nn.CrossEntropyLoss(), nn.CrossEntropyLoss(reduction="sum")])
def test_an_evaluation_of_which_nothing_is_kept_is_heard_as_it_calls_its_loss(loss):
    original = nn.functional.cross_entropy
    validation, net = ValidationLoss(), Net(4, 3)
    data, labels = torch.randn(2, 8, 4), torch.randint(3, (8,))
    held_out_loss(validation, net, data, labels, loss or nn.functional.cross_entropy)
    step(validation)
    for _ in range(LOOKS + 2):
        expected = held_out_loss(validation, net, data, labels, loss or nn.functional.cross_entropy)
        training = loss or nn.functional.cross_entropy
        training(net(data[0])["logits"], labels).backward()  # is not of the evaluation
        scale = 8 if getattr(loss, "reduction", "mean") == "sum" else 1
        with torch.no_grad():
            expected_alone = float(step(validation))
            nn.functional.cross_entropy(net(data[0])["logits"], labels)  # of a target, between evaluations
        assert expected_alone == pytest.approx(expected / scale)
    validation.close()
    assert nn.functional.cross_entropy is original


def test_a_teacher_that_is_asked_in_every_step_is_listened_to_a_few_times_only():
    validation, net = ValidationLoss(), Net(4, 3)
    for _ in range(LOOKS + 1):
        evaluate(validation, net, torch.randn(1, 8, 4))
        assert step(validation) is None
    evaluate(validation, net, torch.randn(1, 8, 4))
    assert nn.functional.cross_entropy.__code__ is not tapped_code()
