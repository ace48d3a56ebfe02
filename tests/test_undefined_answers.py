"""Services that answer NaN are told with the operation and the request, and those that mean what they say are not."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach

REQUESTS, ONSET = 160, 70


class Embedder(nn.Module):
    """Normalises its input; keeps count of its calls."""

    def __init__(self, eps=0.0):
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("seen", torch.zeros(()))
        self.calls, self.log, self.eps = 0, [], eps

    def forward(self, x, cache=None):
        self.seen += 1
        self.calls += 1
        self.log.append(len(x))
        if cache is not None:
            cache.put(x)
        x = x / (x.norm(dim=1, keepdim=True) + self.eps)  # the division
        return self.layer(x)


class Cache:
    def __init__(self):
        self.values = []

    def put(self, value):
        self.values.append(value)


def told(directory, model, request, **more):
    """(kind, cause, place, first request) of every incident of a service; ``request(number)`` is its input."""
    with attach(model.eval(), directory=directory, overhead=1.0), torch.inference_mode():
        for number in range(REQUESTS):
            model(request(number), **more)
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where, i.first_step) for i in diagnose_directory(run).incidents]


def blank(number):
    """From ``ONSET`` on every tenth request has a row of zeros."""
    inputs = torch.randn(4, 6)
    if number >= ONSET and number % 10 == 0:
        inputs[2] = 0
    return inputs


def test_an_operation_without_a_value_is_told_with_its_line_and_changes_nothing(tmp_path):
    model = Embedder()
    ((kind, cause, where, first),) = told(tmp_path, model, blank)

    assert (kind, cause, first) == ("nonfinite", "numerical_domain_error", ONSET)
    assert "test_undefined_answers.py:" in where
    line = Path(__file__).read_text().split("\n")[int(where.rpartition(":")[2]) - 1]
    assert line.endswith("# the division")
    assert (model.calls, float(model.seen), len(model.log)) == (REQUESTS, REQUESTS, REQUESTS)


def test_a_request_with_a_cache_is_not_run_again(tmp_path):
    cache = Cache()
    found = told(tmp_path, Embedder(), blank, cache=cache)

    assert found == [("nonfinite", "numerical_domain_error", "output", ONSET)]
    assert len(cache.values) == REQUESTS


def test_an_input_that_is_nan_is_told_as_such(tmp_path):
    def request(number):
        inputs = torch.randn(4, 6)
        if number == ONSET:
            inputs[1, 3] = torch.nan
        return inputs

    assert told(tmp_path, Embedder(), request) == [("nonfinite", "missing_feature", "input[0][:,3]", ONSET)]


class Masked(nn.Module):
    """Scores of what may be chosen, and -inf for the rest; the missing is filled in."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x):
        missing = x.isnan()
        return self.layer(x.nan_to_num(0.0)).masked_fill(missing[:, :4], -torch.inf)


def test_scores_that_are_masked_and_inputs_that_are_filled_in_are_none(tmp_path):
    def request(number):
        return torch.where(torch.rand(4, 6) < 0.3, torch.nan, torch.randn(4, 6))

    assert told(tmp_path, Masked(), request) == []


@pytest.mark.parametrize("eps", [1e-6])
def test_the_healthy_twin_is_silent(tmp_path, eps):
    assert told(tmp_path, Embedder(eps), blank) == []
