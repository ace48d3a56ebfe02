"""Services that answer in training mode, and those that mean it."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.serving_mode import ServingMode

REQUESTS = 120


def net(part):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), part, nn.ReLU(), nn.Linear(16, 2))


def told(directory, model, answer):
    """(kind, cause, place, first request) of every incident of a service."""
    with attach(model, directory=directory, overhead=1.0):
        for _ in range(REQUESTS):
            answer(model)
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where, i.first_step) for i in diagnose_directory(run).incidents]


def ask(model, times=1):
    inputs = torch.randn(4, 6)
    with torch.no_grad():
        for _ in range(times):
            model(inputs)


@pytest.mark.parametrize("part", [nn.Dropout(0.2), nn.BatchNorm1d(16)])
def test_a_service_in_training_mode_is_told_with_the_layer(tmp_path, part):
    assert told(tmp_path, net(part), ask) == [("miswired", "eval_mode_missing", "1", 0)]


def test_answers_with_gradients_that_nobody_uses_are_requests(tmp_path):
    found = told(tmp_path, net(nn.Dropout(0.2)), lambda model: model(torch.randn(4, 6)))
    assert [incident[:3] for incident in found] == [("miswired", "eval_mode_missing", "1")]


@pytest.mark.parametrize(
    ("model", "answer"),
    [
        (net(nn.Dropout(0.2)).eval(), ask),
        (net(nn.LayerNorm(16)), ask),  # nothing in it answers otherwise
        (net(nn.Dropout(0.2)), lambda model: ask(model, times=5)),  # draws, for their spread
        (net(nn.BatchNorm1d(16)), lambda model: update_bn([torch.randn(8, 6)], model)),  # statistics are gathered
    ],
)
def test_what_is_meant_or_makes_no_difference_is_silent(tmp_path, model, answer):
    assert told(tmp_path, model, answer) == []


@pytest.mark.parametrize("requests", [40, 700])
def test_a_service_is_told_of_at_its_end_or_when_it_has_gone_on_for_long(tmp_path, requests):
    told_at = []
    mode = ServingMode(lambda *details: told_at.append(details))
    model = net(nn.Dropout(0.2))
    for request in range(1, requests + 1):
        mode.answered(model, torch.randn(4, 6), request)
    early = list(told_at)
    mode.ended()

    assert bool(early) == (requests > 512)
    assert told_at == [(0, min(requests, 512), "1")]


def test_a_training_that_gathers_statistics_first_is_no_service(tmp_path):
    model = net(nn.BatchNorm1d(16))
    with attach(model, directory=tmp_path, overhead=1.0):
        for _ in range(200):
            model(torch.randn(4, 6))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with attach(model, optimizer, directory=tmp_path, overhead=1.0):
            for _ in range(30):
                optimizer.zero_grad()
                model(torch.randn(4, 6)).square().mean().backward()
                optimizer.step()

    runs = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert [i.kind for run in runs for i in diagnose_directory(run).incidents] == []


def test_a_training_by_hand_is_no_service(tmp_path):
    model = net(nn.Dropout(0.2))

    def learn(model):
        model(torch.randn(4, 6)).square().mean().backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(parameter.grad, alpha=0.01)
                parameter.grad = None

    assert told(tmp_path, model, learn) == []


def serve(directory, model, requests, change):
    """(kind, cause, first request) of the incidents of a service to which ``change`` is done before each request."""
    torch.manual_seed(0)
    with attach(model, directory=directory, overhead=1.0), torch.no_grad():
        for request in range(requests):
            model(change(request, model, torch.randn(16, 6)))
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.first_step) for i in diagnose_directory(run).incidents]


def test_answers_that_change_with_the_mode_are_its_doing(tmp_path):
    def change(request, model, inputs):
        if request == 600:
            model.train()
        return inputs

    model = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.6), nn.ReLU(), nn.Linear(64, 3)).eval()
    assert serve(tmp_path, model, 1300, change) == [("miswired", "eval_mode_missing", 600)]


def test_answers_that_change_later_are_another_matter(tmp_path):
    def change(request, model, inputs):
        if request == 0:
            model.train()
        if request == 900:
            with torch.no_grad():
                model.get_parameter("3.bias").add_(torch.tensor([0.0, 4.0, 0.0]))
        return inputs

    model = nn.Sequential(nn.Linear(6, 64), nn.Dropout(0.1), nn.ReLU(), nn.Linear(64, 3))
    found = serve(tmp_path, model, 1300, change)
    assert sorted(incident[:2] for incident in found) == [
        ("miswired", "eval_mode_missing"),
        ("prediction_drift", "weights_overwritten"),
    ]
