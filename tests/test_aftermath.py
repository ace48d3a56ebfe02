"""Units that die of wrecked weights belong to what wrecked them, however late; those of a job that is well do not."""

from pathlib import Path

import pytest
import torch
from made_up import finding
from recorded import only_run
from torch import nn
from torchvitals.agent.aftermath import recovered
from torchvitals.agent.crew import Crew
from torchvitals.agent.diagnosis import Diagnosis
from torchvitals.agent.engine import Engine, Noted
from torchvitals.agent.history import History
from torchvitals.agent.offline import diagnose_directory
from torchvitals.agent.watch import RecordWatch
from torchvitals.detectors.detector import Finding
from torchvitals.hooks import attach
from torchvitals.signals.records import Hello

FAULT = 800
LEARNT = [2.0 * 0.98 ** min(step, 150) + 0.01 * (step % 7) for step in range(FAULT)]
LOST = [1.8 + 0.01 * (step % 5) for step in range(4000)]
WILD = [300.0 if step % 6 == 0 else 0.0 for step in range(4000)]
SCAR = [50.0] * 8 + LOST[:40]


def followed(losses: list[float], *found: Finding) -> Diagnosis:
    """As the agent sees it that reads while the job runs: each loss, and each finding at the step it was certain."""
    engine = Engine("run", (), ())
    crew = Crew(Hello(run="run", world_size=1, started=1.0), (), RecordWatch(()))
    engine.crews.append(crew)
    diagnosis = Diagnosis(engine)
    for step, loss in enumerate(losses):
        crew.history.add("loss", step, loss)
        for one in (each for each in found if each.step == step):
            engine.noted.append(Noted(crew, one))
            diagnosis.update()
    return diagnosis


def dead(first: int, *, alive: int | None = None, kind: str = "dead_relu", optimizer: int = 0) -> Finding:
    """Certain 10 steps later, and seen alive at the step before unless told otherwise."""
    evidence = {"alive_at": first - 1 if alive is None else alive}
    return finding(kind, first + 10, first=first, name="2.weight", evidence=evidence, optimizer=optimizer)


@pytest.mark.parametrize(
    ("since", "units", "incidents"),
    [
        (LOST, dead(1500), 1),
        (LOST, dead(3900, kind="saturation"), 1),
        (WILD, dead(1500), 1),  # right most of the time, and far off else
        (SCAR + LEARNT[150:] * 5, dead(3000), 2),
        (SCAR + LEARNT[150:] * 5, dead(3000, kind="saturation"), 2),
        (LOST[:1000] + LEARNT[150:] * 5, dead(FAULT + 1100), 1),  # soon after it was back
        (LOST[:1000] + LEARNT[150:] * 5, dead(FAULT + 2000), 2),
        (SCAR + LEARNT[150:] * 5, dead(1100, alive=805), 1),  # not looked at in between
        (LOST, dead(500), 2),  # before it
        (LOST, dead(1500, optimizer=1), 2),  # another net
    ],
    ids=["lost", "lost long", "wild", "recovered", "recovered and flat", "just back", "back", "gap", "before", "other"],
)
@pytest.mark.parametrize("event", ["explosion", "lost_progress"])
def test_units_belong_to_what_the_job_has_not_recovered_from(since, units: Finding, incidents: int, event: str) -> None:
    diagnosis = followed(LEARNT + since, finding(event, FAULT + 4, first=FAULT, severity="critical"), units)

    assert len(diagnosis.incidents) == incidents
    assert diagnosis.absorbed == {}  # never told of by itself first
    assert (event, FAULT) in [(incident.kind, incident.first_step) for incident in diagnosis.incidents]


def test_a_loss_that_is_not_known_from_before_has_nothing_to_come_back_to() -> None:
    assert recovered(finding("explosion", 5, first=3), History(), 100) == 5


def lost() -> Finding:
    """The loss of a guess from one step to the next."""
    evidence = {"signal": "chance", "chance": 1.8, "level_before": 0.1}
    return finding("divergence", FAULT + 95, first=FAULT, evidence=evidence)


@pytest.mark.parametrize("first", [FAULT + 12, FAULT + 50, FAULT + 1500])
def test_units_that_worked_at_the_loss_of_a_guess_died_of_it(first: int) -> None:
    (incident,) = followed(LEARNT + LOST, lost(), dead(first)).incidents

    assert (incident.kind, incident.first_step, incident.cause) == ("divergence", FAULT, "uninformative_labels")
    assert {each.kind for each in incident.findings} == {"divergence", "dead_relu"}


@pytest.mark.parametrize("first", [FAULT - 20, FAULT, FAULT + 40])
def test_units_that_may_have_died_before_are_why_the_loss_is_that_of_a_guess(first: int) -> None:
    (incident,) = followed(LEARNT + LOST, lost(), dead(first, alive=FAULT - 30)).incidents

    assert (incident.kind, incident.cause) == ("dead_relu", "dying_relu")


def test_labels_that_no_longer_fit_and_the_units_that_die_of_it_are_one_incident(tmp_path: Path) -> None:
    torch.manual_seed(4)
    answers = torch.randn(16, 6)
    model = nn.Sequential(nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 6))
    optimizer = torch.optim.Adam(model.parameters(), 6e-3)
    with attach(model, optimizer, directory=tmp_path, overhead=100.0):
        for step in range(640):
            x = torch.randn(64, 16)
            y = (x @ answers).argmax(1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y[torch.randperm(64)] if step >= 400 else y).backward()
            optimizer.step()
    (incident,) = diagnose_directory(only_run(tmp_path)).incidents

    assert (incident.cause, incident.first_step) == ("uninformative_labels", 400)
    assert "dead_relu" in {each.kind for each in incident.findings}
