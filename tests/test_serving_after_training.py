"""Processes that train first and answer requests afterwards."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.agent.report import headline
from torchvitals.hooks import attach

STEPS = 40
EVALUATED = 700
"""Answers in evaluation mode, the first 200 of which could still be an evaluation."""


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 3))


def ask(model: nn.Module, times: int) -> None:
    with torch.no_grad():
        for _ in range(times):
            model(torch.randn(16, 6))


def trained(directory: Path, *afterwards: Callable[[nn.Module], object]) -> Report:
    """What is said of a process that trains a model and then does ``afterwards`` with it."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(model, optimizer, directory=directory, overhead=1.0):
        for _ in range(STEPS):
            inputs = torch.randn(16, 6)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(1)).backward()
            optimizer.step()
        for do in afterwards:
            do(model)
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return diagnose_directory(run)


def serve_in_evaluation_mode(model: nn.Module) -> None:
    ask(model.eval(), EVALUATED)


def serve_in_training_mode(model: nn.Module) -> None:
    ask(model.train(), 600)


def test_a_service_that_was_trained_and_is_put_in_training_mode_is_told(tmp_path: Path) -> None:
    report = trained(tmp_path, serve_in_evaluation_mode, serve_in_training_mode)
    assert [(i.kind, i.cause, i.where, i.first_step) for i in report.incidents] == [
        ("miswired", "eval_mode_missing", "1", EVALUATED)
    ]


def test_requests_are_not_counted_as_steps(tmp_path: Path) -> None:
    report = trained(tmp_path, serve_in_evaluation_mode)
    assert (report.steps, report.requests) == (STEPS, EVALUATED - 200)
    assert f"{STEPS} steps, {EVALUATED - 200} requests recorded" in headline(report)
    assert f"last completed step {STEPS - 1}" in report.ending


def draw_over_parts(model: nn.Module) -> None:
    """MC dropout, a pass over the set for each draw."""
    held = torch.randn(1600, 6)
    model.train()
    with torch.no_grad():
        for _ in range(8):
            for part in held.split(16):
                model(part)


def evaluate_and_draw(model: nn.Module) -> None:
    """The same with batches that are copied out of the set, and longer than a pass of what is looked at."""
    held = torch.randn(16 * 800, 6)
    with torch.no_grad():
        for mode in (False, True):
            model.train(mode)
            for indices in torch.arange(len(held)).split(16):
                model(held[indices])


def draw_for_each(model: nn.Module) -> None:
    model.train()
    with torch.no_grad():
        for _ in range(60):
            inputs = torch.randn(16, 6)
            for _ in range(10):
                model(inputs)


def gather_statistics(model: nn.Module) -> None:
    update_bn((torch.randn(16, 6) for _ in range(600)), model)


def replay(model: nn.Module) -> None:
    """What a policy with dropout plays, in training mode from the first move on."""
    ask(model.train(), 900)


@pytest.mark.parametrize(
    "afterwards",
    [
        [serve_in_evaluation_mode],
        [serve_in_evaluation_mode, draw_over_parts],
        [evaluate_and_draw],
        [serve_in_evaluation_mode, draw_for_each],
        [serve_in_evaluation_mode, gather_statistics],
        [replay],
        [lambda model: ask(model.eval(), 30), replay],
    ],
)
def test_what_is_meant_is_silent(tmp_path: Path, afterwards: list[Callable[[nn.Module], object]]) -> None:
    assert [(i.kind, i.cause) for i in trained(tmp_path, *afterwards).incidents] == []
