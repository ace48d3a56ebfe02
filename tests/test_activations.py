"""The activation profile against numbers computed from the outputs themselves, and that it does no harm."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvitals.hooks.activations import ActivationProfile, whole_samples
from torchvitals.hooks.flatness import FLATNESS, SLOPE
from torchvitals.hooks.fuse import Fuse
from torchvitals.signals.records import ABSENT


def measure(profile, model, inputs):
    profile.install()
    output = model(inputs)
    profile.remove()
    entries, values = profile.collect(output)
    return {entry: {name: float(array[i]) for name, array in values.items()} for i, entry in enumerate(entries)}


def test_statistics_equal_those_of_the_output_before_an_inplace_relu():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(inplace=True), nn.Linear(16, 3))
    inputs = torch.randn(32, 6)
    raw = nn.functional.linear(inputs, model[0].weight, model[0].bias).detach()
    seen = measure(ActivationProfile(model), model, inputs)

    assert seen["0"]["module_output_absmax"] == pytest.approx(float(raw.abs().max()))
    assert seen["0"]["module_output_std"] == pytest.approx(float(raw.std(correction=0)), rel=1e-5)
    assert seen["1"]["module_zero_share"] == pytest.approx(float((raw <= 0).float().mean()))
    assert seen["0"]["module_silent_units"] == ABSENT


def test_planted_dead_channels_are_silent():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
    with torch.no_grad():
        model[0].bias[:2] = -100
    profile = ActivationProfile(model)
    for _ in range(10):
        seen = measure(profile, model, torch.randn(4, 1, 8, 8))

    assert seen["1"]["module_silent_units"] == 0.25


def test_the_units_of_a_sequence_are_last_and_of_a_series_second():
    def silent(model, inputs):
        profile = ActivationProfile(model)
        for _ in range(10):
            seen = measure(profile, model, inputs)
        return seen["1"]["module_silent_units"]

    linear = nn.Sequential(nn.Linear(5, 8), nn.ReLU())
    series = nn.Sequential(nn.Conv1d(5, 8, 1), nn.ReLU())
    for model in (linear, series):
        with torch.no_grad():
            model[0].bias[:4] = -100
            model[0].bias[4:] = 100

    assert silent(linear, torch.randn(3, 12, 5)) == 0.5
    assert silent(series, torch.randn(3, 5, 12)) == 0.5


def test_saturation_is_measured_inside_and_not_in_the_answer():
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), nn.Sigmoid())
    with torch.no_grad():
        model[0].weight.mul_(1000)
        model[2].weight.mul_(1000)
    seen = measure(ActivationProfile(model), model, torch.randn(64, 4))

    assert seen["1"]["module_saturated_share"] > 0.9
    assert seen["3"]["module_saturated_share"] == ABSENT


@pytest.mark.parametrize("kind", sorted(FLATNESS))
def test_flat_means_a_slope_under_a_twentieth_of_the_steepest(kind):
    module = getattr(nn, kind)()
    inputs = torch.linspace(-12, 12, 4001, dtype=torch.float64, requires_grad=True)
    output = module(inputs)
    (slope,) = torch.autograd.grad(output.sum(), inputs)
    flat = FLATNESS[kind](module, output.detach())
    clear = (slope - SLOPE * slope.max()).abs() > 1e-3

    assert torch.equal(flat[clear], (slope < SLOPE * slope.max())[clear])


def test_a_shared_module_has_an_entry_per_call():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 8), relu, nn.Linear(8, 8), relu, nn.Linear(8, 2))
    seen = measure(ActivationProfile(model), model, torch.randn(5, 4))

    assert list(seen) == ["0", "1", "2", "1#1", "4"]


def test_entries_only_grow():
    class Branchy(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.second = nn.Linear(4, 4), nn.Linear(4, 4), False

        def forward(self, x):
            return self.b(x) if self.second else self.a(x)

    model = Branchy()
    profile = ActivationProfile(model)
    assert list(measure(profile, model, torch.randn(2, 4))) == ["a"]
    model.second = True
    seen = measure(profile, model, torch.randn(2, 4))

    assert list(seen) == ["a", "b"]
    assert seen["a"]["module_output_absmax"] == ABSENT


def test_the_second_forward_of_checkpointing_is_not_counted():
    block = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    model = nn.ModuleDict({"block": block, "head": nn.Linear(8, 1)})
    model.forward = lambda x: model["head"](checkpoint(block, x, use_reentrant=False))
    profile = ActivationProfile(model)
    profile.install()
    model(torch.randn(3, 4)).sum().backward()
    profile.remove()
    entries, _ = profile.collect()

    assert entries == ["block.0", "block.1", "head"]


def test_unsampled_models_have_no_hooks_and_outputs_are_untouched():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(8, 2))
    inputs = torch.randn(5, 4)
    torch.manual_seed(7)
    plain = model(inputs)
    profile = ActivationProfile(model)
    torch.manual_seed(7)
    profile.install()
    profile.install()
    watched = model(inputs)
    profile.remove()

    assert torch.equal(plain, watched)
    assert not any(module._forward_hooks for module in model.modules())


def test_copies_made_while_installed_are_inert():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    profile = ActivationProfile(model)
    profile.install()
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for twin in twins:
        twin(torch.randn(2, 4))
    profile.remove()

    assert profile.collect() == ([], {})


def test_an_error_inside_does_not_reach_the_job():
    seen = []
    model = nn.Sequential(nn.Linear(4, 8), nn.Hardtanh())
    del model[1].max_val
    model[1].forward = lambda x: x
    profile = ActivationProfile(model, Fuse(lambda probe, error: seen.append((probe, type(error).__name__))))
    profile.install()
    model(torch.randn(2, 4))
    profile.remove()

    assert seen == [("activations", "AttributeError")]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_script_module_cannot_be_seen():
    profile = ActivationProfile(torch.jit.trace(nn.Sequential(nn.Linear(2, 2)), torch.ones(1, 2)))
    profile.install()

    assert "ScriptModule" in profile.reason
    assert profile.collect() == ([], {})


def test_a_single_module_has_no_leaves_inside():
    assert "single module" in ActivationProfile(nn.Linear(2, 2)).reason


def test_compiled_models_are_left_alone():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    assert ActivationProfile(model).reason == ""
    model.compile(backend="eager")

    assert "compiled" in ActivationProfile(model).reason


def test_large_outputs_are_read_in_part():
    assert whole_samples(torch.zeros(64, 1 << 16)).shape == (16, 1 << 16)
    assert whole_samples(torch.zeros(64, 16)).shape == (64, 16)
