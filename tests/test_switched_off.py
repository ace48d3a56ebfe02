"""A loss whose weight is zero until others have learnt is no fault; one that is lost is."""

from pathlib import Path

import torch
from recorded import only_run
from torch import nn
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.hooks import attach


def codec(directory: Path, *, begins: int, alone: bool = False, steps: int = 120) -> Report:
    """An autoencoder and its discriminator, whose loss is multiplied by zero before step ``begins``."""
    torch.manual_seed(0)
    coder = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 16))
    judge = nn.Sequential(nn.Linear(16, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    of_coder, of_judge = torch.optim.Adam(coder.parameters(), 1e-3), torch.optim.Adam(judge.parameters(), 1e-4)
    optimizers = [of_judge] if alone else [of_coder, of_judge]
    with attach([coder, judge], optimizers, directory=directory, overhead=100.0):  # on a busy machine, too
        for step in range(steps):
            x = torch.randn(32, 16)
            if not alone:
                of_coder.zero_grad()
                (coder(x) - x).abs().mean().backward()
                of_coder.step()
            of_judge.zero_grad()
            loss = (1 - judge(x)).relu().mean() + (1 + judge(coder(x).detach())).relu().mean()
            (float(step >= begins) * loss).backward()
            of_judge.step()
    return diagnose_directory(only_run(directory))


def test_a_discriminator_that_begins_later_is_silent_and_the_report_says_why(tmp_path: Path) -> None:
    report = codec(tmp_path, begins=60)

    assert report.incidents == []
    assert any(each.what == "vanishing" and "optimizer 1" in each.why for each in report.not_checked)


def test_a_loss_of_zero_that_is_the_only_one_is_told(tmp_path: Path) -> None:
    (incident,) = codec(tmp_path, begins=200, alone=True).incidents

    assert (incident.kind, incident.cause, incident.first_step) == ("vanishing", "constant_loss", 0)
