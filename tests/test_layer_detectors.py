"""Layer detectors on real small trainings, recorded at sampled steps, and on the edges that tell them apart."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvitals.detectors.dead_relu import DeadReluByGradient, DeadReluByOutput
from torchvitals.detectors.detector import Reading
from torchvitals.detectors.saturation import Saturation
from torchvitals.detectors.streak import Streak
from torchvitals.detectors.stuck_parameters import IdleOptimizer, UnchangedParameters
from torchvitals.detectors.update_ratio import UpdateRatio
from torchvitals.detectors.vanishing import VanishingGradient, ZeroGradient

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))
from layer_probe import Probe, findings

DETECTORS = [
    DeadReluByGradient, DeadReluByOutput, Saturation, IdleOptimizer, UnchangedParameters, UpdateRatio,
    VanishingGradient, ZeroGradient,
]  # fmt: skip


def mlp(activation=nn.ReLU, depth=3, width=32):
    layers = []
    for index in range(depth):
        layers += [nn.Linear(width if index else 12, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 3))


class Functional(nn.Module):
    def __init__(self, activation=F.relu, depth=3, width=32):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width if index else 12, width) for index in range(depth)])
        self.head = nn.Linear(width, 3)
        self.activation = activation

    def forward(self, x):
        for layer in self.layers:
            x = self.activation(layer(x))
        return self.head(x)


def record(model, *, steps=90, interval=5, batch=32, rate=0.05, fault=None, onset=0, optimizer=None):
    """Train on separable blobs; ``fault(model, optimizer)`` is done before step ``onset``."""
    random = torch.Generator().manual_seed(1)
    centres = torch.randn(3, 12, generator=random)
    optimizer = optimizer or torch.optim.SGD([p for p in model.parameters() if p.requires_grad], rate)
    probe = Probe(model, optimizer, interval)
    for step in range(steps):
        if fault is not None and step == onset:
            fault(model, optimizer)
        labels = torch.randint(0, 3, (batch,), generator=random)
        inputs = centres[labels] + 0.7 * torch.randn(batch, 12, generator=random)
        optimizer.zero_grad()
        probe.backward(F.cross_entropy(model(inputs), labels))
        optimizer.step()
    return probe


def found(probe):
    return [(f.kind, f.name, f.first_step) for f in findings(probe, DETECTORS)]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def frozen_backbone():
    model = mlp()
    model[:4].requires_grad_(False)
    return model


def sparse():
    model = Functional(width=64)
    with torch.no_grad():
        x = torch.randn(500, 12)
        for layer in model.layers:
            layer.bias -= torch.quantile(layer(x), 0.9, dim=0)
            x = F.relu(layer(x))
    return model


@pytest.mark.parametrize(
    ("model", "options"),
    [
        (mlp, {}),
        (Functional, {"interval": 1}),
        (sparse, {"batch": 1, "rate": 0.01, "steps": 200}),
        (frozen_backbone, {}),
        (lambda: mlp(nn.Tanh), {"steps": 150}),
        (lambda: mlp(nn.Sigmoid, depth=3), {"rate": 0.5}),
        (lambda: mlp(depth=10), {"rate": 0.1}),
        (lambda: Functional(depth=2), {"rate": 1e-5}),
    ],
    ids=["relu", "functional", "sparse-batch-1", "frozen", "tanh", "sigmoid", "deep", "fine-tuning"],
)
def test_healthy_trainings_are_silent(model, options):
    assert found(record(model(), **options)) == []


def lower_bias(layer, amount=60.0):
    def fault(model, _optimizer):
        with torch.no_grad():
            model.get_submodule(layer).bias -= amount

    return fault


def test_a_dying_functional_layer_is_named():
    probe = record(Functional(), fault=lower_bias("layers.1"), onset=40)
    assert found(probe) == [("dead_relu", "layers.1.weight", 38)]


def test_a_dying_relu_module_is_named_by_both_axes():
    probe = record(mlp(), fault=lower_bias("2"), onset=40)
    assert sorted(found(probe)) == [("dead_relu", "2.weight", 38), ("dead_relu", "3", 38)]


def test_a_layer_dead_from_the_start_is_named():
    probe = record(Functional(), fault=lower_bias("layers.0"))
    assert found(probe) == [("dead_relu", "layers.0.weight", 0)]


def test_an_idle_branch_is_not_dead():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.head, self.step = nn.Linear(12, 32), nn.Linear(32, 3), 0
            self.experts = nn.ModuleList([nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in "ab"])

        def forward(self, x):
            self.step += 1
            h = F.relu(self.enter(x))
            share = float(self.step < 40)  # the router gives the first expert up
            return self.head(h + share * self.experts[0](h) + self.experts[1](h))

    assert found(record(Experts())) == []


@pytest.mark.parametrize("depth", [20, 40])
@pytest.mark.parametrize("build", [lambda d: mlp(nn.Sigmoid, d), lambda d: Functional(torch.sigmoid, d)])
def test_deep_sigmoid_nets_vanish_from_the_first_step(build, depth):
    kinds = {(kind, first) for kind, _, first in found(record(build(depth), steps=25))}
    assert kinds == {("vanishing", 0)}


def test_a_gradient_of_nothing_but_zeros_is_told_unless_the_job_is_done():
    dead, done = ZeroGradient(), ZeroGradient()
    for step in range(20):
        zero = 0.0 if step >= 4 else 1.0
        a = dead.update(Reading.of(step, gradient_norm=[zero], loss=[2.3]))
        b = done.update(Reading.of(step, gradient_norm=[zero], loss=[2.3 if step < 4 else 0.0]))
        assert [f.first_step for f in a] == ([4] if step == 8 else [])
        assert b == []


def test_a_loss_that_was_never_other_than_zero_is_no_job_that_is_done():
    empty, begins = ZeroGradient(), ZeroGradient()
    told = []
    for step in range(60):
        told += empty.update(Reading.of(step, gradient_norm=[0.0], loss=[0.0]))
        met = float(step >= 20)
        assert begins.update(Reading.of(step, gradient_norm=[met], loss=[met])) == []
    assert [(f.first_step, f.step) for f in told] == [(0, 29)]


def test_shrinking_gradients_of_a_converging_job_are_silent():
    detector = VanishingGradient()
    for step in range(100):
        norms = 10.0 ** (-step / 8) * np.array([1.0, 0.7, 0.3, 0.2])
        reading = Reading.of(
            step, parameter_gradient_norm=norms, parameter_weight_norm=np.ones(4), parameter_rows=np.full(4, 8.0)
        )
        assert detector.update(reading) == []
    assert detector.status().state == "ok"


def test_an_output_layer_drawn_at_zero_is_no_measure_for_the_layers_below():
    model = mlp(depth=4)
    nn.init.zeros_(model[-1].weight)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def begin_slowly(_model, optimizer):
        optimizer.param_groups[0]["lr"] = 1e-6

    assert found(record(model, optimizer=optimizer, fault=begin_slowly, interval=1, steps=40)) == []


def test_a_share_that_leaps_to_and_fro_is_not_stuck():
    shares = [0.3, 0.3, 0.3, 0.3, *[0.2, 0.82] * 20, 0.82, 0.82, 0.2, *[0.3] * 30, *[0.82] * 6]
    detector = Saturation()
    steps = [finding.step for step, share in enumerate(shares)
             for finding in detector.update(Reading.of(step, module_saturated_share=[share]))]  # fmt: skip

    assert steps == [len(shares) - 4]


def test_saturated_tanh_is_told_from_the_step_of_the_fault():
    def scale_up(model, _optimizer):
        with torch.no_grad():
            model[0].weight *= 400

    assert found(record(mlp(nn.Tanh), fault=scale_up, onset=50, rate=1e-4))[0] == ("saturation", "1", 48)


@pytest.mark.parametrize("onset", [0, 30])
def test_a_learning_rate_of_zero_is_told(onset):
    def stop(_model, optimizer):
        optimizer.param_groups[0]["lr"] = 0.0

    kinds = {(kind, abs(first - onset) <= 3) for kind, _, first in found(record(mlp(), fault=stop, onset=onset))}
    assert kinds == {("stuck_parameters", True)}


def test_a_schedule_may_end_at_zero():
    detector = IdleOptimizer()
    rates = [max(0.0, min(step / 10, 1 - step / 100)) for step in range(115)]
    assert not [f for step, rate in enumerate(rates) for f in detector.update(Reading.of(step, learning_rate=[rate]))]


def test_an_optimizer_of_a_copy_is_told():
    original, used = mlp(), mlp()
    probe = record(used, optimizer=torch.optim.SGD(original.parameters(), 0.1))
    assert {kind for kind, _, _ in found(probe)} == {"stuck_parameters"}


def test_a_detached_backbone_is_told_and_an_unused_head_is_not():
    model = Functional()
    model.forward = lambda x: model.head(F.relu(model.layers[1](F.relu(model.layers[0](x)))).detach())
    assert [kind for kind, _, _ in found(record(model))] == ["stuck_parameters"]

    model = Functional()
    model.spare = nn.Linear(4, 4)
    assert found(record(model)) == []


def test_a_learning_rate_too_small_to_move_a_weight_is_told():
    model = mlp()
    probe = record(model, optimizer=torch.optim.Adam(model.parameters(), 1e-11), steps=40)
    assert {kind for kind, _, _ in found(probe)} == {"stuck_parameters", "update_ratio"}


def test_bfloat16_weights_that_round_updates_away_are_told():
    model = Functional().bfloat16()
    forward = model.forward
    model.forward = lambda x: forward(x.bfloat16()).float()
    assert "stuck_parameters" in {kind for kind, _, _ in found(record(model, rate=1e-6, steps=40))}


def test_the_onset_is_half_way_between_routine_samples_and_at_the_first_of_a_burst():
    routine, burst = Streak(), Streak()
    one = np.array([True])
    for step in (0, 20, 40, 60):
        routine.update(step, np.array([step >= 40]), one)
    for step in (0, 100, 101, 102, 140, 180, 220):  # after the burst, routine again
        burst.update(step, np.array([step >= 100]), one)

    assert routine.onset(0) == 30
    assert burst.onset(0) == 100


@pytest.mark.parametrize("detector", DETECTORS)
def test_detectors_that_saw_nothing_do_not_say_ok(detector):
    fresh = detector()
    assert fresh.update(Reading.of(0, other=[1.0])) == []
    assert fresh.status().state == "not_checked"


def test_one_layer_that_starts_near_zero_is_replaced_by_its_first_steps() -> None:
    detector = UpdateRatio()
    for step in range(8):
        reading = Reading.of(
            step,
            parameter_update_norm=[0.8],
            parameter_weight_norm=[1.0],
            parameter_gradient_norm=[1.0],
            parameter_rows=[1],
        )

        assert detector.update(reading) == []


def test_the_death_of_a_layer_that_was_sparse_before_is_dated_by_its_last_words():
    detector = DeadReluByOutput()
    found = []
    for step in range(0, 60, 2):
        silent, zero = (1.0, 1.0) if step >= 40 else (0.0, 0.79 if step < 10 else 0.83)
        found += detector.update(Reading.of(step, module_silent_units=[silent], module_zero_share=[zero]))

    assert [(finding.first_step, finding.step) for finding in found] == [(39, 40)]
