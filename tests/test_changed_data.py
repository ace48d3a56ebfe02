"""What a job is shown changes under it: targets of another scale, labels of other rows, inputs without content."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvitals.agent.kinds import follows
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.detector import Finding
from torchvitals.detectors.unlearnt import Unlearnt
from torchvitals.hooks import attach
from torchvitals.signals.records import Event, Hello, Step

CHANGE = 260
CLASSES = 4


def incidents(directory, model, optimizer, train, steps):
    with attach(model, optimizer, directory=directory, overhead=1.0):
        for step in range(steps):
            train(step)
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where, i.first_step) for i in diagnose_directory(run).incidents]


def classifier(directory, change, steps=500):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

    def train(step):
        inputs = torch.randn(64, 12)
        labels = inputs[:, :CLASSES].argmax(1)
        if step >= CHANGE:
            inputs, labels = change(inputs, labels)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    return incidents(directory, model, optimizer, train, steps)


def regression(directory, change, steps=400):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    weights = torch.randn(12, 1) / 3

    def train(step):
        inputs = torch.randn(64, 12)
        targets = change(inputs @ weights, step)
        optimizer.zero_grad()
        ((model(inputs) - targets) ** 2).mean().backward()
        optimizer.step()

    return incidents(directory, model, optimizer, train, steps)


def test_labels_of_other_rows_are_told_from_the_step_on_at_which_they_came(tmp_path):
    found = classifier(tmp_path, lambda inputs, labels: (inputs, labels.roll(1)))

    assert found == [("divergence", "uninformative_labels", "target", CHANGE)]


def test_inputs_without_content_are_a_bad_batch(tmp_path):
    found = classifier(tmp_path, lambda inputs, labels: (torch.zeros_like(inputs), labels))

    assert found == [("divergence", "bad_batch", "input", CHANGE)]


def test_inputs_that_are_scaled_a_second_time_are_a_bad_batch(tmp_path):
    """As by ``x.div_(255)`` on what the data set keeps."""
    found = classifier(tmp_path, lambda inputs, labels: (inputs / 255, labels))

    assert found == [("divergence", "bad_batch", "input", CHANGE)]


def test_inputs_that_become_smaller_and_are_learnt_again_are_no_fault(tmp_path):
    assert classifier(tmp_path, lambda inputs, labels: (inputs / 2, labels)) == []


def test_a_new_task_that_is_learnt_is_no_fault(tmp_path):
    assert classifier(tmp_path, lambda inputs, labels: (inputs, (labels + 1) % CLASSES)) == []


def test_some_noise_in_the_labels_is_no_fault(tmp_path):
    def relabel(inputs, labels):
        return inputs, torch.where(torch.rand(len(labels)) < 0.3, torch.randint(CLASSES, labels.shape), labels)

    assert classifier(tmp_path, relabel) == []


@pytest.mark.parametrize("last", [CHANGE, 10**6], ids=["one batch", "from then on"])
def test_targets_of_another_unit_are_told_as_such(tmp_path, last):
    found = regression(tmp_path, lambda targets, step: targets * (1e4 if CHANGE <= step <= last else 1))

    assert [(cause, where, first) for _, cause, where, first in found] == [("bad_batch", "target", CHANGE)]


def test_targets_that_become_a_little_larger_are_none(tmp_path):
    assert regression(tmp_path, lambda targets, step: targets * (1.5 if step >= CHANGE else 1)) == []


def follow(losses, first=None):
    detector, hello = Unlearnt(), Hello(run="r", rank=0, world_size=1, pid=7)
    start = {"classes": 10, "chance": float(np.log(10)), "loss": losses[0] if first is None else first}
    detector.observe(hello, Event(9.5, 0, "first_loss", start))
    return [f for step, loss in enumerate(losses) for f in detector.observe(hello, Step(step, 10.0, {"loss": loss}))]


LEARNT = [2.4 * 0.98 ** min(step, 100) for step in range(200)]


def test_a_loss_at_chance_is_told_once():
    (finding,) = follow(LEARNT + [2.5] * 300)

    assert (finding.first_step, finding.step) == (200, 295)


def test_who_learns_slowly_has_the_time_that_it_took_at_first():
    slow = [2.3 if step < 400 else 0.6 for step in range(600)]

    assert follow(slow + [2.4] * 300 + [0.6] * 100) == []
    assert [finding.step for finding in follow(slow + [2.4] * 1000)] == [1415]


@pytest.mark.parametrize(
    "losses",
    [
        LEARNT + [2.5] * 60 + [1.0] * 100,
        [*LEARNT, 2.5, 2.4, *LEARNT[100:]],
        LEARNT + list(np.linspace(LEARNT[-1], 2.3, 120)) + [2.3] * 200,  # a game comes to its balance step by step
        LEARNT + [1.8] * 300,  # a harder task, of which something is known
        [2.4] * 500,  # it never knew
        LEARNT + [float("nan")] * 300,
    ],
    ids=["learnt again", "one batch", "a game", "harder", "never knew", "not finite"],
)
def test_what_is_learnt_again_or_was_never_known_is_none(losses):
    assert follow(losses) == []


def test_another_net_that_learns_slowly_is_no_fault():
    detector, hello = Unlearnt(), Hello(run="r", rank=0, world_size=1, pid=7)
    detector.observe(hello, Event(9.5, 0, "first_loss", {"classes": 10, "chance": 2.3026, "loss": LEARNT[0]}))
    for step, loss in enumerate(LEARNT + [2.4] * 300):
        record = Step(step, 10.0, {"loss": loss}, optimizer=int(step >= len(LEARNT)), leads=True)
        assert detector.observe(hello, record) == []


def test_a_loss_that_is_made_of_more_has_no_chance():
    assert follow(LEARNT + [2.5] * 300, first=1.2) == []


def test_what_else_is_found_is_never_a_consequence_of_a_loss_at_chance():
    lost = Finding(kind="divergence", severity="error", first_step=200, step=300, value=2.3, threshold=2.1,
                   evidence={"signal": "chance"})  # fmt: skip
    dead = Finding(kind="dead_relu", severity="error", first_step=206, step=220, value=1.0, threshold=0.9)
    flat = Finding(kind="plateau", severity="error", first_step=0, step=520, value=2.3, threshold=2.3)

    assert follows(dead, lost)
    assert not follows(lost, dead)
    assert follows(lost, flat)
