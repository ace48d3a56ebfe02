"""A weight that is not finite: who made it so is told by when, and by what the optimizer was told."""

from pathlib import Path

import pytest
import torch
from recorded import only_run
from torch import nn
from torchvitals.agent.case import Case
from torchvitals.agent.causes.numerical_domain_error import NumericalDomainError
from torchvitals.agent.causes.weights_overwritten import WeightsOverwritten
from torchvitals.agent.history import History
from torchvitals.agent.incident import Incident
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.detector import Finding
from torchvitals.hooks import attach
from torchvitals.signals.records import Event


def trained(directory: Path, *, broken_at: int, value: float = float("inf"), eps: float = 1e-8) -> Incident:
    """The one incident of a job whose ``2.weight`` is written to before step ``broken_at``, below 0 never."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
    if eps == 0:
        model[0].bias.data[3] = -50.0  # a dead unit: its weights never get a gradient
    if broken_at == 0:
        model[2].weight.data[1, 5] = value
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=eps)
    with attach(model, optimizer, directory=directory):
        for step in range(60):
            if 0 < step == broken_at:
                with torch.no_grad():
                    model[2].weight[1, 5] = value
            x = torch.randn(16, 6)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
            optimizer.step()
    (incident,) = diagnose_directory(only_run(directory)).incidents
    return incident


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_weight_that_somebody_wrote_to_is_named_with_its_step(tmp_path: Path, value: float) -> None:
    incident = trained(tmp_path, broken_at=40, value=value)

    assert (incident.kind, incident.cause, incident.where) == ("nonfinite", "weights_overwritten", "2.weight")
    assert incident.first_step == 40
    assert "flat index 21" in incident.explanation


@pytest.mark.parametrize(
    ("norm_at", "number", "overwritten"),
    [
        (39, 1, True),
        (39, 48, True),  # all of it, but after a step whose gradients were all finite
        (30, 1, True),  # one value of 48
        (30, 48, False),  # of the last step only some gradients are known: that of this weight may have done it
    ],
)
def test_a_gradient_that_nobody_looked_at_may_have_spoilt_a_weight(
    norm_at: int, number: int, overwritten: bool
) -> None:
    history = History()
    for step in range(40):
        history.add("loss", step, 1.0)
    history.add("gradient_norm", norm_at, 0.5)
    details = {
        "operation": "parameter", "parameter": "2.weight", "value": "nan", "shape": [3, 16],
        "elements": list(range(number))[:8], "inputs": {"nonfinite": float(number)}, "complete": True,
    }  # fmt: skip
    opening = Finding(kind="nonfinite", severity="critical", first_step=40, step=40, value=float("nan"), threshold=1.0)
    case = Case(
        findings=[opening], history=history, facts={}, events=[(0, Event(0.0, 40, "origin", details))], world_size=1
    )

    assert (WeightsOverwritten().weigh(case) is not None) == overwritten


@pytest.mark.parametrize(("read", "told"), [("tripwire_norm", True), ("gradient_norm", False)])
def test_an_update_whose_gradient_was_read_in_part_is_named_with_its_step(read: str, told: bool) -> None:
    """A scalar in the middle, whose gradient alone was NaN: those nearest the input were finite."""
    history = History()
    for step in range(40):
        history.add("loss", step, 1.0)
        history.add(read, step, 0.5)
    details = {"operation": "parameter", "parameter": "pool.p", "value": "nan", "shape": [], "elements": [0]}
    opening = Finding(kind="nonfinite", severity="critical", first_step=40, step=40, value=float("nan"), threshold=1.0)
    event = Event(0.0, 40, "origin", {**details, "inputs": {"nonfinite": 1.0}, "complete": True})
    case = Case(findings=[opening], history=history, facts={}, events=[(0, event)], world_size=1)

    opinion = NumericalDomainError().weigh(case)
    assert opinion is not None
    assert (opinion.where, opinion.first_step) == (("pool.p", 39) if told else ("", None))


def test_one_that_was_so_before_the_first_step_came_with_the_weights(tmp_path: Path) -> None:
    incident = trained(tmp_path, broken_at=0, value=float("nan"))

    assert (incident.kind, incident.cause, incident.where) == ("nonfinite", "bad_initialization", "2.weight")
    assert "checkpoint" in incident.remedy


def test_an_update_without_eps_is_the_optimizers(tmp_path: Path) -> None:
    incident = trained(tmp_path, broken_at=-1, eps=0.0)

    assert (incident.kind, incident.cause, incident.where) == ("nonfinite", "numerical_domain_error", "0.weight")
    assert incident.first_step == 1
