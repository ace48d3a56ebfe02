"""The gradient profile against numbers computed independently, one tensor at a time."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvitals.hooks.norms import norms
from torchvitals.hooks.profiles import GradientProfile, layers
from torchvitals.hooks.silence import Silence
from torchvitals.signals.records import ABSENT


def profile_of(model, **options):
    named = dict(model.named_parameters())
    kinds = {
        f"{path}.{name}" if path else name: type(module).__name__
        for path, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    return GradientProfile(list(named), named.values(), kinds, **options)


def step(model, optimizer, profile, inputs, scale=None):
    optimizer.zero_grad()
    loss = model(inputs).square().mean()
    (loss if scale is None else loss * scale).backward()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    grads = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    answer = profile.before(None if scale is None else torch.tensor(scale))
    optimizer.step()
    answer |= profile.after()
    return answer, before, grads


def test_norms_equal_those_of_each_tensor():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    profile = profile_of(model)
    answer, before, grads = step(model, torch.optim.SGD(model.parameters(), 0.1), profile, torch.randn(4, 5))
    for index, (name, parameter) in enumerate(model.named_parameters()):
        assert answer["parameter_gradient_norm"][index] == pytest.approx(math.sqrt(float((grads[name] ** 2).sum())))
        assert answer["parameter_weight_norm"][index] == pytest.approx(float(parameter.detach().norm()))
        change = (parameter.detach() - before[name]).norm()
        assert answer["parameter_update_norm"][index] == pytest.approx(float(change), rel=1e-5)


def test_a_scaled_gradient_is_unscaled():
    torch.manual_seed(0)
    model = nn.Linear(5, 3)
    inputs = torch.randn(4, 5)
    plain, _, _ = step(model, torch.optim.SGD(model.parameters(), 0.0), profile_of(model), inputs)
    scaled, _, _ = step(model, torch.optim.SGD(model.parameters(), 0.0), profile_of(model), inputs, scale=1024.0)

    assert plain["parameter_gradient_norm"] == pytest.approx(scaled["parameter_gradient_norm"], rel=1e-5)


def test_frozen_and_unused_parameters_are_absent():
    model = nn.ModuleDict({"used": nn.Linear(4, 4), "unused": nn.Linear(4, 4), "frozen": nn.Linear(4, 4)})
    model["frozen"].requires_grad_(False)
    model.forward = lambda x: model["used"](model["frozen"](x))
    profile = profile_of(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    answer, _, _ = step(model, torch.optim.SGD(trained, 0.1), profile, torch.randn(3, 4))

    gradient, weight = answer["parameter_gradient_norm"], answer["parameter_weight_norm"]
    assert (gradient[:2] > 0).all()
    assert gradient[2:].tolist() == [ABSENT] * 4
    assert (weight[:4] >= 0).all()
    assert weight[4:].tolist() == [ABSENT] * 2


def test_of_what_rests_only_the_update_is_absent():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    profile = profile_of(model)
    model(torch.randn(3, 4)).square().mean().backward()
    answer = profile.before(resting={2, 3}) | profile.after()

    assert (answer["parameter_gradient_norm"] > 0).all()
    assert (answer["parameter_update_norm"] == ABSENT).tolist() == [False, False, True, True]


def test_only_planted_dead_units_are_silent():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    with torch.no_grad():
        model[0].bias[:5] = -100
    profile = profile_of(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for _ in range(12):
        answer, _, _ = step(model, optimizer, profile, torch.randn(64, 6))

    assert answer["parameter_zero_rows"].tolist() == [0.25, ABSENT, 0.0, ABSENT]
    assert answer["parameter_silent_rows"].tolist() == [0.25, ABSENT, 0.0, ABSENT]
    assert answer["parameter_rows"].tolist() == [20, ABSENT, 3, ABSENT]


def test_a_layer_in_front_of_a_dead_one_is_not_judged():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    profile = profile_of(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for at in range(12):
        if at == 6:
            nn.init.constant_(model[2].bias, -100.0)
        answer, _, _ = step(model, optimizer, profile, torch.randn(64, 6))

    assert answer["parameter_silent_rows"].tolist() == [ABSENT, ABSENT, 1.0, ABSENT, 0.0, ABSENT]


def test_rows_of_embeddings_and_transposed_convolutions_are_no_units():
    model = nn.ModuleDict({
        "embed": nn.Embedding(10, 4),
        "up": nn.ConvTranspose2d(4, 8, 3),
        "rnn": nn.LSTM(4, 5),
        "conv": nn.Conv1d(4, 6, 3, bias=False),
        "norm": nn.LayerNorm(6),
    })  # fmt: skip
    named = dict(model.named_parameters())
    kinds = {name: type(model[name.split(".")[0]]).__name__ for name in named}
    found = layers(list(named), list(named.values()), kinds)

    assert [(list(named)[layer.weight], layer.rows) for layer in found] == [("conv.weight", 6), ("norm.weight", 6)]


def test_a_class_of_its_own_is_known_by_its_bias():
    weight, bias, lone = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(5, 5))
    names = ["mine.weight", "mine.bias", "other.weight"]
    found = layers(names, [weight, bias, lone], {"mine.weight": "Mine", "mine.bias": "Mine", "other.weight": "Other"})

    assert [tuple(layer) for layer in found] == [(0, 1, 3)]


def test_sparse_gradients_are_read():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 4, sparse=True), nn.Linear(4, 2))
    answer, _, grads = step(model, torch.optim.SGD(model.parameters(), 0.1), profile_of(model), torch.tensor([1, 1, 3]))
    dense = grads["0.weight"].to_dense()

    assert answer["parameter_gradient_norm"][0] == pytest.approx(float(dense.norm()))
    assert answer["parameter_silent_rows"][0] == ABSENT


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_norms_do_not_overflow(dtype):
    tensors = [torch.full((300, 300), 300.0, dtype=dtype), torch.ones(4)]

    assert [float(norm) for norm in norms(tensors)] == pytest.approx([90_000.0, 2.0], rel=1e-3)
    assert norms([]) == []


def test_an_overflowing_norm_of_finite_numbers_is_not_called_nonfinite():
    model = nn.Linear(10, 1)
    profile = profile_of(model)
    model.weight.grad = torch.full((1, 10), 1e30)
    model.bias.grad = torch.tensor([float("nan")])
    answer = profile.before()
    answer |= profile.after()

    assert answer["parameter_gradient_norm"][0] == math.inf
    assert answer["parameter_nonfinite"].tolist() == [0.0, 1.0]


def test_updates_of_a_large_model_are_measured_in_turns():
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(8, 8, bias=False) for _ in range(4)], nn.Linear(8, 40, bias=False))
    profile = profile_of(model, copied=130)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    seen = []
    for _ in range(6):
        answer, _, _ = step(model, optimizer, profile, torch.randn(4, 8))
        seen.append(np.flatnonzero(answer["parameter_update_norm"] != ABSENT).tolist())

    assert all(1 <= len(indices) <= 2 for indices in seen)
    assert set().union(*seen) == {0, 1, 2, 3}  # the fifth is larger than the allowance


def test_nothing_of_the_job_is_kept_between_samples():
    model = nn.Linear(4, 4)
    profile = profile_of(model)
    step(model, torch.optim.SGD(model.parameters(), 0.1), profile, torch.randn(2, 4))

    kept = [value for value in vars(profile).values() if isinstance(value, list)]
    assert not any(
        isinstance(item, torch.Tensor) and not isinstance(item, nn.Parameter) for items in kept for item in items
    )


def test_training_is_bit_equal_with_and_without_the_profile():
    def train(watched):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 9), nn.ReLU(), nn.Linear(9, 2))
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        profile = profile_of(model)
        for _ in range(5):
            optimizer.zero_grad()
            F.mse_loss(model(torch.randn(8, 5)), torch.randn(8, 2)).backward()
            if watched:
                profile.before()
            optimizer.step()
            if watched:
                profile.after()
        return [p.detach().clone() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(train(watched=True), train(watched=False), strict=True))


@pytest.mark.parametrize(("activity", "patience"), [(1.0, 3), (0.5, 7), (0.1, 44)])
def test_a_unit_is_silent_when_its_past_makes_it_improbable(activity, patience):
    """(1 - a)^r <= 0.01 gives r = 44 for a = 0.1; the memory of 32 samples blurs it a little."""
    random = np.random.default_rng(0)
    silence = Silence([50])
    every = np.array([True])
    for _ in range(200):
        silence.update(random.random(50) < activity, every)
    shares = [float(silence.update(np.arange(50) < 1, every)[0]) for _ in range(4 * patience)]
    half = next(i + 1 for i, share in enumerate(shares) if share >= 0.5)

    assert patience * 0.5 <= half <= patience * 2


def test_sparse_units_at_batch_size_one_are_not_silent():
    random = np.random.default_rng(0)
    silence = Silence([64, 64])
    worst = 0.0
    for _ in range(300):
        share = silence.update(random.random(128) < 0.1, np.array([True, True]))
        worst = max(worst, float(share.max()))

    assert worst < 0.5
