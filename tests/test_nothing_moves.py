"""Nothing is learnt because nothing moves: rate, clipping and eps told apart; jobs that rest or warm up are silent."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.standstill import Standstill
from torchvitals.detectors.vanishing_weights import VanishingWeights
from torchvitals.hooks import attach
from torchvitals.hooks.clipping import Clipping

STEPS = 400


def found(loss=lambda step: 2.0, rate=lambda step: 1e-6, moved=lambda step: 3e-7, **others):
    detector, findings = Standstill(), []
    noise = np.random.default_rng(0).normal(0, 0.05, STEPS)
    for step in range(STEPS):
        values = {"loss": loss(step) + noise[step], **others}
        if step % 10 == 0:
            values |= {"learning_rate": rate(step), "update_share": moved(step)}
        findings += detector.update(Reading.of(step, **values))
    return findings


def test_a_rate_at_which_nothing_moves_is_told_once_with_the_first_step():
    (finding,) = found()

    assert (finding.first_step, finding.step, finding.evidence["epsilon_share"]) == (0, 319, 0.0)


@pytest.mark.parametrize(
    "healthy",
    [
        {"loss": lambda step: 2.0 - 0.002 * step},
        {"moved": lambda step: 3e-7 if step else 1e-3},
        {"rate": lambda step: 1e-8 * (step + 1)},
        {"rate": lambda step: 0.1},  # it would move if the gradient were not gone: it goes on from where it converged
        {"rate": lambda step: 1e-7, "moved": lambda step: 2e-6, "epsilon_share": 1e-4},  # Adam, on a large model
        {"rate": lambda step: 0.0, "moved": lambda step: 0.0},
    ],
    ids=["it learns", "it moved once", "warm-up", "converged", "fine-tuning", "no rate"],
)
def test_what_learns_rests_or_warms_up_is_silent(healthy):
    assert found(**healthy) == []


def test_clipping_is_taken_into_account_before_a_gradient_counts_as_gone():
    healthy = {"rate": lambda step: 0.1, "moved": lambda step: 1e-7}

    (finding,) = found(**healthy, gradient_norm=1e-6, gradient_norm_unclipped=1.0)

    assert finding.evidence["clipped"] == pytest.approx(1e6)


def shrinking(factors, layers=3):
    detector, findings = VanishingWeights(), []
    norms = np.linspace(3.0, 9.0, layers)
    for step, factor in enumerate(factors):
        norms = norms * factor
        reading = Reading.of(10 * step, parameter_weight_norm=norms, parameter_rows=np.full(layers, 8.0))
        findings += detector.update(reading)
    return findings


def test_weights_that_shrink_steadily_are_told():
    (finding,) = shrinking([1.0] + [0.7] * 30)

    assert finding.value <= 0.03


@pytest.mark.parametrize("factors", [[1.0, 0.01] + [1.0] * 9, [1.0] + [0.97] * 40, [1.0] * 5 + [0.9, 1.1] * 20])
def test_weights_that_are_clamped_at_once_settle_or_waver_are_not(factors):
    assert shrinking(factors) == []


def job(build, clip=None, *, by_value=False):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 32), nn.Tanh(), nn.Linear(32, 3))
    optimizer = build(model.parameters())

    def step():
        inputs = torch.randn(32, 12)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(1)).backward()
        if clip and by_value:
            nn.utils.clip_grad_value_(model.parameters(), clip)
        elif clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()

    return model, optimizer, step


@pytest.mark.parametrize(
    ("build", "clip", "causes"),
    [
        (lambda weights: torch.optim.SGD(weights, lr=1e-6), None, ["learning_rate_zero"]),
        (lambda weights: torch.optim.SGD(weights, lr=0.1), 1e-6, ["excessive_clipping"]),
        (lambda weights: torch.optim.Adam(weights, lr=1e-4, eps=10.0), None, ["excessive_epsilon"]),
        (lambda weights: torch.optim.SGD(weights, lr=0.1, weight_decay=1.0), None, ["excessive_weight_decay"]),
        (lambda weights: torch.optim.Adam(weights, lr=1e-2), 1e-4, []),  # it adapts to what clipping leaves
        (lambda weights: torch.optim.RMSprop(weights, lr=1e-3, eps=1.0), None, []),  # slow, and it learns
        (lambda weights: torch.optim.AdamW(weights, lr=1e-3, weight_decay=1.0), None, []),
    ],
    ids=["rate", "clip", "eps", "decay", "adapts", "slow", "decays"],
)
def test_jobs_are_told_with_their_cause_or_left_alone(tmp_path, build, clip, causes):
    model, optimizer, step = job(build, clip)
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(STEPS):
            step()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]

    assert [incident.cause for incident in diagnose_directory(run).incidents] == causes


@pytest.mark.parametrize(("clip", "told"), [(1e-8, True), (1e-5, True), (0.05, False)])
def test_clipping_each_value_is_told_by_what_it_leaves_of_the_norm(tmp_path, clip, told):
    model, optimizer, step = job(lambda weights: torch.optim.SGD(weights, lr=0.1), clip, by_value=True)
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(STEPS):
            step()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    incidents = diagnose_directory(run).incidents

    assert [(incident.cause, incident.where) for incident in incidents] == [("excessive_clipping", "optimizer")] * told
    assert all(f"{clip:.3g} each" in incident.title for incident in incidents)


def test_weights_that_are_trained_to_be_nothing_are_no_fault(tmp_path):
    torch.manual_seed(0)
    model = nn.Linear(8, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(120):
            optimizer.zero_grad()
            model(torch.randn(16, 8)).square().mean().backward()
            optimizer.step()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    report = diagnose_directory(run)

    assert report.incidents == []
    assert any("trained to be small" in each.why for each in report.not_checked)


def test_a_loss_made_of_a_number_is_told_with_its_line(tmp_path):
    model, optimizer, _ = job(lambda weights: torch.optim.Adam(weights, lr=1e-3))
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(30):
            optimizer.zero_grad()
            value = model(torch.randn(32, 12)).square().mean().item()
            torch.tensor(value, requires_grad=True).backward()
            optimizer.step()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (incident,) = diagnose_directory(run).incidents

    assert (incident.kind, incident.cause, incident.first_step) == ("stuck_parameters", "frozen_parameters", 0)
    assert "test_nothing_moves.py:" in incident.where


def test_clipping_before_the_loss_scale_is_taken_off_is_told_as_such(tmp_path):
    model, optimizer, _ = job(lambda weights: torch.optim.SGD(weights, lr=0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(STEPS):
            inputs = torch.randn(32, 12)
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(inputs), inputs[:, :3].argmax(1))
            scaler.scale(loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    (incident,) = diagnose_directory(run).incidents

    assert (incident.cause, incident.where) == ("excessive_clipping", "optimizer")
    assert "unscale_" in incident.remedy


def test_what_was_clipped_for_a_step_that_was_never_made_is_of_no_step():
    clipping, weight = Clipping(), nn.Parameter(torch.ones(3))
    weight.grad = torch.full((3,), 9.0)
    clipping.before_values(0, [weight])
    clipping.changes()
    weight.grad = torch.full((3,), 2.0)
    clipping.before_values(0, [weight])

    assert float(clipping.told(0, [weight])["gradient_norm_unclamped"]) == pytest.approx(12**0.5)
