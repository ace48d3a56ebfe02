"""A job that takes its monitor off has not died, and one that an exception throws out of it has."""

from pathlib import Path

import pytest
import torch
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.hooks import attach
from torchvitals.signals.reader import list_runs


def train(monitored: int, directory: Path, *, raises: type[BaseException] | None = None) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with attach(model, optimizer, directory=directory):
        for _ in range(monitored):
            optimizer.zero_grad()
            model(torch.ones(4, 2)).pow(2).sum().backward()
            optimizer.step()
        if raises is not None:
            raise raises("planted")


def report_of(directory: Path) -> Report:
    (run,) = list_runs(directory)
    return diagnose_directory(run.path)


def test_a_detached_job_is_finished_though_its_process_goes_on(tmp_path: Path) -> None:
    train(5, tmp_path)
    report = report_of(tmp_path)

    assert (report.state, report.steps, report.incidents) == ("finished", 5, [])


def test_an_exception_that_ends_the_block_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ArithmeticError):
        train(5, tmp_path, raises=ArithmeticError)
    (incident,) = report_of(tmp_path).incidents

    assert (incident.kind, incident.cause, incident.first_step) == ("crash", "exception", 5)
    assert "test_detach.py:" in incident.where


def test_whoever_interrupts_it_has_not_made_it_crash(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(5, tmp_path, raises=KeyboardInterrupt)

    assert report_of(tmp_path).incidents == []
