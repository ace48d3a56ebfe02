"""Units that training takes to their ends while the loss falls on are no fault; those that keep it from falling are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from made_up import finding
from recorded import only_run
from torch import nn
from torchvitals.agent.case import Case
from torchvitals.agent.flat_but_learning import flat_but_learning
from torchvitals.agent.history import History
from torchvitals.agent.offline import Report, diagnose_directory
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.saturation import Saturation
from torchvitals.hooks import attach

ONSET, CERTAIN = 200, 300


def excuse(losses: np.ndarray, *kinds: str, **evidence: object) -> str:
    history = History()
    for step, loss in enumerate(losses.tolist()):
        history.add("loss", step, loss)
    found = [finding(kind, CERTAIN, first=ONSET, name="3", evidence=evidence) for kind in ("saturation", *kinds)]
    return flat_but_learning(Case(findings=found, history=history, facts={}, events=[]))


def test_a_loss_that_falls_on_says_that_the_net_learns_all_the_same() -> None:
    assert "from 30.4 to 25.3" in excuse(np.linspace(40, 20, 400))


@pytest.mark.parametrize(
    "losses",
    [
        np.full(400, 30.0),
        np.linspace(20, 40, 400),
        np.concatenate((np.linspace(40, 10, ONSET), np.linspace(60, 20, 200))),  # from where a fault has thrown it
        np.linspace(40, 20, CERTAIN)[ONSET - 8 :],  # too little is known
        np.where(np.arange(400) > 250, np.nan, 30.0),
    ],
    ids=["stays", "rises", "thrown", "short", "not finite"],
)
def test_a_loss_that_does_not_is_no_excuse(losses: np.ndarray) -> None:
    assert excuse(losses) == ""


def test_nothing_is_excused_that_was_so_from_the_start_or_does_more() -> None:
    falling = np.linspace(40, 20, 400)

    assert excuse(falling, from_start=True) == excuse(falling, "plateau") == ""


@pytest.mark.parametrize(("shares", "step"), [([0.9] * 12, 60), ([0.4, 0.5, 0.6, *[0.9] * 12], 140)])
def test_units_that_creep_to_their_ends_are_watched_for_longer_than_those_that_leap(shares: list[float], step: int):
    detector = Saturation()
    course = [0.0] * 4 + shares
    found = [each.step for at, share in enumerate(course)
             for each in detector.update(Reading.of(10 * at, module_saturated_share=[share]))]  # fmt: skip

    assert found == [step]


def critic(directory: Path, *, scale: float = 1.0, steps: int = 240) -> Report:
    """A net of tanh units learns values far from zero; at step 150 its first layer may be multiplied by ``scale``."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3 if scale == 1 else 1e-5)
    with attach(model, optimizer, directory=directory, overhead=100.0):
        for step in range(steps):
            if step == 150 and scale != 1:
                with torch.no_grad():
                    model[0].weight *= scale
            x = torch.randn(128, 4)
            values = (60.0 if scale == 1 else 0.0) + 3.0 * x[:, :1] + torch.randn(128, 1)
            optimizer.zero_grad()
            (model(x) - values).square().mean().backward()
            optimizer.step()
    return diagnose_directory(only_run(directory))


def test_a_critic_with_large_values_is_silent_and_the_report_says_why(tmp_path: Path) -> None:
    report = critic(tmp_path)

    assert report.incidents == []
    assert any(each.what == "saturation" and "fell on" in each.why for each in report.not_checked)


def test_units_that_a_fault_has_thrown_to_their_ends_are_told(tmp_path: Path) -> None:
    (incident,) = critic(tmp_path, scale=400.0).incidents

    assert (incident.kind, incident.cause) == ("saturation", "saturating_activation")
