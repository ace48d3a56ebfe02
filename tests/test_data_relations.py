"""What is wrong with the data though the code runs: the first batch for ever, targets that are no probabilities."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss
from torch.utils.data import DataLoader, TensorDataset
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.loss_graph import invalid_targets, no_log_probabilities
from torchvitals.hooks.operation_line import operation_line
from torchvitals.hooks.source import user_frames

STEPS = 60


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def loader_of(rows=256, shuffle=False):
    inputs = torch.randn(rows, 8)
    return DataLoader(TensorDataset(inputs, inputs.mean(1, keepdim=True)), batch_size=32, shuffle=shuffle)


def told(directory, next_batch):
    """(kind, cause) of every incident of a training on what ``next_batch(step)`` gives."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    with attach(model, optimizer, directory=directory, overhead=1.0):
        for step in range(STEPS):
            inputs, targets = next_batch(step)
            optimizer.zero_grad()
            mse_loss(model(inputs), targets).backward()
            optimizer.step()
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause) for i in diagnose_directory(run).incidents]


def test_a_new_iterator_at_each_step_is_told(tmp_path):
    loader = loader_of()

    assert told(tmp_path, lambda _: next(iter(loader))) == [("miswired", "repeated_batch")]


def once_by_heart():
    batch = next(iter(loader_of()))
    return lambda _: batch


def shuffled():
    loader = loader_of(shuffle=True)
    return lambda _: next(iter(loader))


def all_in_one_batch():
    loader = loader_of(rows=32)
    return lambda _: next(iter(loader))


def in_epochs():
    loader = loader_of(rows=64)
    batches = [batch for _ in range(STEPS) for batch in loader]
    return lambda step: batches[step]


def with_a_look_at_the_validation_set():
    train, held_out = iter(loader_of(rows=32 * STEPS)), loader_of()

    def batch(_):
        next(iter(held_out))
        return next(train)

    return batch


def another_batch_is_trained_on():
    held_out = loader_of()

    def batch(_):
        next(iter(held_out))
        return torch.randn(16, 8), torch.randn(16, 1)

    return batch


@pytest.mark.parametrize(
    "healthy",
    [once_by_heart, shuffled, all_in_one_batch, in_epochs, with_a_look_at_the_validation_set,
     another_batch_is_trained_on],
)  # fmt: skip
def test_batches_that_are_taken_on_purpose_are_not(tmp_path, healthy):
    assert "repeated_batch" not in [cause for _, cause in told(tmp_path, healthy())]


@pytest.mark.parametrize(
    ("targets", "wrong"),
    [
        (torch.tensor([-1.0, 1.0]), True),
        (torch.tensor([0.0, 255.0]), True),
        (torch.tensor([1.0, 2.0]), True),
        (torch.tensor([0.0, 1.0]), False),
        (torch.tensor([0.0, 1.2]), False),  # real images, labelled softly and noisily
        (torch.tensor([0.3, 0.9]), False),
        (torch.tensor([]), False),
    ],
)
def test_targets_that_are_no_probabilities_are_told(targets, wrong):
    scores = torch.zeros(len(targets), requires_grad=True)

    found = invalid_targets(binary_cross_entropy_with_logits(scores, targets) + scores.sum(), [])

    assert (found is not None) is wrong
    assert not wrong or (found["low"], found["high"]) == (float(targets.min()), float(targets.max()))


@pytest.mark.parametrize(
    ("make", "given"),
    [
        (lambda scores: scores, "scores"),
        (lambda scores: scores.softmax(1), "probabilities"),
        (lambda scores: scores.log_softmax(1), ""),
        (lambda scores: scores.softmax(1).log(), ""),
        (lambda scores: scores.log_softmax(1) * -2.0, ""),  # a policy's, weighted by an advantage
        (lambda scores: (scores.softmax(1) + 1e-6).log(), ""),
        (lambda scores: scores.bfloat16().log_softmax(1).float(), ""),
        (lambda scores: scores.log_softmax(1).bfloat16(), ""),
        (lambda scores: scores.log_softmax(1).masked_fill(torch.eye(6)[:, :4] > 0, -torch.inf), ""),
        (lambda scores: torch.stack([scores, scores + 1]).log_softmax(2).logsumexp(0) - math.log(2), ""),  # an ensemble
    ],
)
def test_a_likelihood_takes_the_logarithms_of_probabilities(make, given):
    torch.manual_seed(0)
    scores = torch.randn(6, 4, requires_grad=True)
    found = no_log_probabilities(torch.nn.functional.nll_loss(make(scores), torch.tensor([3, 2, 1, 0, 1, 2])), [])

    assert (found["given"] if found else "") == given


def test_a_cross_entropy_takes_scores():
    loss = torch.nn.functional.cross_entropy(torch.randn(6, 4, requires_grad=True), torch.zeros(6, dtype=torch.long))

    assert no_log_probabilities(loss, []) is None


@pytest.mark.parametrize(
    ("make", "log_target", "given"),
    [
        (lambda scores: scores.softmax(1), False, "probabilities"),
        (lambda scores: scores.softmax(1), True, "probabilities"),
        (lambda scores: scores.log_softmax(1), False, ""),
        (lambda scores: scores.log_softmax(1), True, ""),
        (lambda scores: (scores.softmax(1) + 1e-8).log(), False, ""),
    ],
)
@pytest.mark.parametrize("learnt", [False, True])
def test_a_divergence_takes_the_logarithms_of_probabilities(make, log_target, given, learnt):
    torch.manual_seed(0)
    scores, others = torch.randn(6, 4, requires_grad=True), torch.randn(6, 4, requires_grad=learnt)
    target = others.log_softmax(1) if log_target else others.softmax(1)
    loss = torch.nn.functional.kl_div(make(scores), target, reduction="batchmean", log_target=log_target) * 4.0
    found = no_log_probabilities(loss, list(user_frames()))

    assert (found["given"] if found else "") == given
    assert not found or "test_data_relations.py:" in found["line"]


def test_expected_costs_are_no_divergence():
    torch.manual_seed(0)
    shares, costs = torch.randn(6, 4, requires_grad=True).softmax(1), torch.rand(6, 4)

    assert no_log_probabilities((costs - costs * shares).sum(), list(user_frames())) is None


class Trained:
    """As a trainer's module: it has a ``log`` of its own."""

    def log(self, name, value):
        pass

    def train(self, logger, rate):
        loss = rate.log().sum()  # the operation
        self.log("loss", math.log(2.0))
        logger.log(self, "loss", loss)
        return list(user_frames())


def test_a_logger_is_no_logarithm():
    frames = Trained().train(Trained, torch.ones(3))

    assert operation_line("log", frames).code.endswith("# the operation")
