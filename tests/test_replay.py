"""The replay names the first operation that made a non-finite value, and the job cannot tell that it ran."""

import copy
import random
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvitals.hooks import replay as replay_module
from torchvitals.hooks.replay import Replay, replaying

SOURCE = Path(__file__).read_text().splitlines()


def line_with(mark):
    """``file:line`` of the one line that ends in the comment ``mark``."""
    numbers = [number for number, text in enumerate(SOURCE, 1) if text.endswith(f"# {mark}")]
    assert len(numbers) == 1
    return f":{numbers[0]}"


def watched(module):
    """A replay that sees the forwards of ``module``, as the recorder would let it."""
    replay = Replay(module)
    module.register_forward_pre_hook(replay.remember, with_kwargs=True)

    def left(module, args, output):
        if not replaying():
            replay.remember_output(output)

    def entered(module, args, kwargs):
        if not replaying():
            replay.remember(module, args, kwargs)

    module._forward_pre_hooks.clear()
    module.register_forward_pre_hook(entered, with_kwargs=True)
    module.register_forward_hook(left)
    return replay


class Body(nn.Module):
    """A linear layer, something in the middle, a linear layer."""

    def __init__(self, middle):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.middle = middle
        self.last = nn.Linear(8, 1)

    def forward(self, x):
        return self.last(self.middle(self.first(x)))


class Log(nn.Module):
    def forward(self, x):
        return torch.log(x)  # log of negative


class Root(nn.Module):
    def forward(self, x):
        return (x - x).sqrt() + x  # sqrt at zero


class Standardize(nn.Module):
    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        return centred / centred.std(1, keepdim=True)  # division by zero


class Exp(nn.Module):
    def forward(self, x):
        return torch.exp(x * 1e4)  # exp overflow


@pytest.fixture(autouse=True)
def _seeded(monkeypatch):
    """And alone: models of earlier tests may still wait for the garbage collector, with what they remember."""
    torch.manual_seed(0)
    monkeypatch.setattr(replay_module, "_replays", weakref.WeakSet())


def forward_origin(middle, x=None, loss_of=lambda out: out.mean()):
    model = Body(middle)
    replay = watched(model)
    loss = loss_of(model(torch.randn(6, 4) if x is None else x))
    assert not torch.isfinite(loss)
    return replay.loss_origin(loss)


def test_log_of_a_negative_number_in_a_submodule():
    origin = forward_origin(Log())
    assert origin["operation"] == "aten.log.default"
    assert origin["module"] == "middle"
    assert origin["line"].endswith(line_with("log of negative"))
    assert origin["code"].startswith("return torch.log(x)")
    assert origin["phase"] == "forward"
    assert origin["inputs"]["min"] < 0
    assert origin["inputs"]["nonfinite"] == 0
    assert origin["value"] == "nan"
    assert origin["parameters_finite"]
    assert origin["batch_finite"]
    assert origin["complete"], origin["why_incomplete"]


def test_division_by_zero_in_a_custom_norm_of_one_constant_row():
    x = torch.randn(6, 4)
    x[4] = 0.0
    model = Body(Standardize())
    nn.init.zeros_(model.first.bias)
    replay = watched(model)
    origin = replay.loss_origin(model(x).mean())
    assert origin["operation"] == "aten.div.Tensor"
    assert origin["module"] == "middle"
    assert origin["line"].endswith(line_with("division by zero"))
    assert origin["batch_rows"] == [4]
    assert origin["inputs"]["zeros"] == 1


def test_exp_overflow_is_told_from_nan():
    origin = forward_origin(Exp())
    assert origin["operation"] == "aten.exp.default"
    assert origin["value"] == "inf"
    assert origin["inputs"]["max"] > 88


def test_the_birth_is_named_and_not_what_came_of_it():
    class Chain(nn.Module):
        def forward(self, x):
            grown = torch.exp(x * 1e4)
            return grown / (1 + grown)

    assert forward_origin(Chain())["operation"] == "aten.exp.default"


def test_a_bad_row_in_the_batch():
    x = torch.randn(6, 4)
    x[2, 3] = float("nan")
    origin = forward_origin(nn.Identity(), x)
    assert origin["operation"] == "batch"
    assert origin["batch_rows"] == [2]
    assert origin["columns"] == [3]
    assert origin["elements"] == [11]
    assert not origin["batch_finite"]
    assert origin["parameters_finite"]


def test_a_nan_in_the_batch_that_the_model_handles_is_no_origin():
    class Impute(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = Body(Log())

        def forward(self, x):
            return self.body(x.nan_to_num())

    model = Impute()
    replay = watched(model)
    x = torch.randn(6, 4)
    x[0, 0] = float("nan")
    origin = replay.loss_origin(model(x).mean())
    assert origin["operation"] == "aten.log.default"
    assert origin["module"] == "body.middle"


def test_parameters_that_were_not_finite_before():
    model = Body(nn.Identity())
    with torch.no_grad():
        model.last.weight[0, 1] = float("nan")
    replay = watched(model)
    origin = replay.loss_origin(model(torch.randn(6, 4)).mean())
    assert origin["operation"] == "parameter"
    assert origin["parameter"] == "last.weight"
    assert not origin["parameters_finite"]


def test_sqrt_at_zero_in_backward():
    model = Body(Root())
    replay = watched(model)
    loss = model(torch.randn(6, 4)).mean()
    assert torch.isfinite(loss)
    loss.backward()
    before = [p.grad.clone() for p in model.parameters()]
    origin = replay.gradient_origin(model.parameters())
    assert origin["phase"] == "backward"
    assert origin["operation"] == "aten.div.Tensor"
    assert origin["node"] == "SqrtBackward0"
    assert origin["forward_operation"] == "aten.sqrt.default"
    assert origin["module"] == "middle"
    assert origin["line"].endswith(line_with("sqrt at zero"))
    assert origin["inputs"]["zeros"] > 0
    assert origin["complete"], origin["why_incomplete"]
    for p, gradient in zip(model.parameters(), before, strict=True):
        assert torch.equal(p.grad, gradient) or p.grad.isnan().any()


def test_finite_gradients_have_no_origin():
    model = Body(nn.ReLU())
    replay = watched(model)
    model(torch.randn(6, 4)).mean().backward()
    assert replay.gradient_origin(model.parameters()) is None


def log_likelihood(out):
    probability = out.squeeze(1) - out.max()
    return -torch.log(probability - 1).mean()  # log in the loss


def test_nan_in_the_loss_expression_in_another_function():
    model = Body(nn.Tanh())
    replay = watched(model)
    loss = log_likelihood(model(torch.randn(6, 4)))
    origin = replay.loss_origin(loss)
    assert origin["phase"] == "loss"
    assert origin["operation"] == "aten.log"
    assert origin["inputs"]["max"] < 0
    assert origin["line"].endswith(line_with("log in the loss"))
    assert origin["batch_rows"] == [0, 1, 2, 3, 4, 5]
    assert origin["complete"], origin["why_incomplete"]


def test_division_in_the_loss_by_a_batch_without_members():
    model = Body(nn.Tanh())
    replay = watched(model)
    out = model(torch.randn(6, 4))
    weight = torch.zeros(6, 1)
    loss = (out * weight).sum() / weight.sum()  # empty mask
    origin = replay.loss_origin(loss)
    assert origin["operation"] == "aten.div"
    assert origin["inputs"]["zeros"] == 1
    assert origin["line"].endswith(line_with("empty mask"))


def mean_over_boxes(answers, wanted):
    return nn.functional.smooth_l1_loss(answers[wanted], torch.ones_like(answers[wanted]))  # mean over nothing


@pytest.mark.parametrize(
    ("loss_of", "operation", "line"),
    [
        (lambda out, none: out[none].mean(), "aten.mean", ""),
        (lambda out, none: out[none].mean(-1).sum() / out[none].mean(0).sum(), "aten.mean", ""),
        (mean_over_boxes, "aten.smooth_l1_loss", "mean over nothing"),
        (lambda out, none: nn.functional.cross_entropy(out.repeat(1, 2), none.long() - 100), "aten.nll_loss", ""),
        (lambda out, none: (out[:, 0] * none).sum() / none.sum(), "aten.div", ""),  # by an integer
    ],
)
def test_a_mean_over_nothing_is_named(loss_of, operation, line):
    model = Body(nn.Tanh())
    replay = watched(model)
    none = torch.zeros(6, dtype=torch.bool)
    whole = nn.functional.mse_loss(out := model(torch.randn(6, 4)), torch.ones(6, 1))
    origin = replay.loss_origin(whole + loss_of(out, none))
    assert (origin["operation"], origin["phase"], origin["batch_finite"]) == (operation, "loss", True)
    assert not line or origin["line"].endswith(line_with(line))


def test_a_mean_over_something_is_not_blamed_for_what_comes_after_it():
    model = Body(nn.Tanh())
    replay = watched(model)
    out, some = model(torch.randn(6, 4)), torch.arange(6) > 3
    loss = out[some].mean() + mean_over_boxes(out, some) + (out[:, 0] * some).sum() / some.sum()
    loss = loss + nn.functional.cross_entropy(out.repeat(1, 2), torch.where(some, 1, -100))
    assert replay.loss_origin(loss + (-out.square().mean()).log())["operation"] == "aten.log"


def test_of_several_divisions_the_one_by_zero_is_named():
    model = Body(nn.Tanh())
    replay = watched(model)
    out, temperature, step = model(torch.randn(6, 4)), 0.0, 4
    step = step / 2
    logits = out.repeat(1, 3) / temperature  # by zero
    loss = (logits.log_softmax(1).mean() + out.mean()) / 2
    origin = replay.loss_origin(loss)
    assert origin["operation"] == "aten.div"
    assert origin["line"].endswith(line_with("by zero"))


@pytest.mark.parametrize("short", [True, False])
def test_a_target_that_is_longer_than_its_input_makes_ctc_infinite(short):
    model = nn.Linear(4, 5)
    replay = watched(model)
    scores = model(torch.randn(9, 3, 4)).log_softmax(-1)
    lengths = torch.tensor([9, 2 if short else 9, 9])
    targets = torch.randint(1, 5, (3, 4))
    loss = nn.functional.ctc_loss(scores, targets, lengths, torch.full((3,), 4), reduction="none")  # ctc
    loss = loss.mean() if short else loss.mean().sub(1e6).log()
    origin = replay.loss_origin(loss)
    assert (origin["operation"], origin["value"]) == (("aten.ctc_loss", "inf") if short else ("aten.log", "nan"))
    if short:
        assert origin["line"].endswith(line_with("ctc"))


def test_a_nan_target_is_a_bad_batch():
    model = Body(nn.Tanh())
    replay = watched(model)
    target = torch.randn(6, 1)
    target[3] = float("nan")
    loss = nn.functional.mse_loss(model(torch.randn(6, 4)), target)
    origin = replay.loss_origin(loss)
    assert origin["operation"] == "batch"
    assert origin["phase"] == "loss"
    assert origin["batch_rows"] == [3]
    assert not origin["batch_finite"]


@pytest.mark.parametrize(("value", "source"), [(float("inf"), "batch"), (3e38, "aten.sub")])
def test_an_infinite_target_is_told_from_a_difference_that_overflows(value, source):
    model = Body(nn.Tanh())
    replay = watched(model)
    target = torch.full((6, 1), value if source != "batch" else 1.0)
    target[3] = value
    answers = model(torch.randn(6, 4)) * (1.0 if source == "batch" else -1e38)
    answers = answers if source == "batch" else answers - 2e38 * torch.ones(6, 1)
    origin = replay.loss_origin(((answers - target) ** 2).mean())
    assert origin["operation"] == source
    assert source != "batch" or (origin["batch_rows"], origin["outside"]) == ([3], True)


def test_a_nan_target_under_a_handwritten_loss():
    model = Body(nn.Tanh())
    replay = watched(model)
    target = torch.randn(6, 1)
    target[3] = float("nan")
    loss = ((model(torch.randn(6, 4)) - target) ** 2).mean()
    origin = replay.loss_origin(loss)
    assert origin["operation"] == "batch"
    assert origin["batch_rows"] == [3]


def test_the_gradient_of_a_loss_that_is_infinite_at_a_finite_value():
    model = Body(nn.Tanh())
    replay = watched(model)
    out = model(torch.randn(6, 4))
    loss = (out - out.detach()).abs().sum().sqrt()  # sqrt in the loss
    loss.backward()
    origin = replay.gradient_origin(model.parameters())
    assert origin["phase"] == "loss"
    assert origin["operation"] == "aten.sqrt"
    assert origin["line"].endswith(line_with("sqrt in the loss"))


class Attention(nn.Module):
    def __init__(self, after=lambda x: x, *, rows=slice(0, 0)):
        super().__init__()
        self.project = nn.Linear(8, 24)
        self.after = after
        self.rows = rows

    def forward(self, x):
        q, k, v = self.project(x).chunk(3, -1)
        scores = q @ k.transpose(1, 2)
        mask = torch.ones(5, 5).tril() == 0
        mask[self.rows] = True
        scores = scores.masked_fill(mask, float("-inf"))
        scores = scores + torch.full((5, 5), float("-inf")).triu(1)
        weights = scores.softmax(-1)  # softmax
        return self.after(weights @ v)


def test_attention_masks_are_healthy():
    model = Attention()
    replay = watched(model)
    out = model(torch.randn(2, 5, 8))
    loss = (out.sum() * 0 - 1).log()  # log after attention
    origin = replay.loss_origin(loss)
    assert origin["phase"] == "loss"
    assert origin["line"].endswith(line_with("log after attention"))


def test_a_mask_is_not_blamed_for_what_comes_after_it():
    model = Attention(torch.log)
    replay = watched(model)
    origin = replay.loss_origin(model(torch.randn(2, 5, 8)).mean())
    assert origin["operation"] == "aten.log.default"


def test_a_row_that_is_masked_altogether_is_the_fault_of_the_softmax():
    model = Attention(rows=slice(2, 3))
    replay = watched(model)
    origin = replay.loss_origin(model(torch.randn(2, 5, 8)).mean())
    assert origin["operation"] == "aten._softmax.default"
    assert origin["line"].endswith(line_with("softmax"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_is_replayed(dtype):
    class Large(nn.Module):
        def forward(self, x):
            return x * 60000 * 60000

    model = Body(Large())
    replay = watched(model)
    with torch.autocast("cpu", dtype=dtype):
        loss = model(torch.randn(6, 4)).float().mean()
    if dtype is torch.bfloat16:
        assert torch.isfinite(loss)
        return
    origin = replay.loss_origin(loss)
    assert origin["operation"] == "aten.mul.Tensor"
    assert origin["dtype"] == "float16"
    assert origin["value"] == "inf"
    assert origin["module"] == "middle"


class MaskedMean(nn.Module):
    """Attention over the valid places of each row; of an empty row all scores are minus infinity."""

    def forward(self, x, valid):
        weights = torch.softmax(torch.zeros_like(x).masked_fill(~valid, -torch.inf), -1)  # softmax of nothing
        return weights * x


def test_answers_that_the_loss_leaves_out_spoil_the_gradient_and_it_is_the_model_that_made_them():
    torch.manual_seed(0)
    model = MaskedModel()
    replay = watched(model)
    valid = torch.ones(3, 8, dtype=torch.bool)
    valid[1] = False
    target = torch.tensor([2, -100, 1])
    loss = nn.functional.cross_entropy(model(torch.randn(3, 4), valid), target)
    assert torch.isfinite(loss)
    loss.backward()

    origin = replay.gradient_origin(model.parameters())

    assert (origin["operation"], origin["module"], origin["phase"]) == ("aten._softmax.default", "middle", "forward")
    assert origin["line"].endswith(line_with("softmax of nothing"))
    assert origin["batch_rows"] == [1]


class MaskedModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 8), MaskedMean(), nn.Linear(8, 3)

    def forward(self, x, valid):
        return self.last(self.middle(self.first(x), valid))


def test_fp16_overflow_in_backward_under_a_gradient_scaler():
    model = Body(nn.ReLU())
    replay = watched(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
    with torch.autocast("cpu", dtype=torch.float16):
        loss = (model(torch.randn(6, 4)).float() * 10).mean()
    scaler.scale(loss).backward()
    origin = replay.gradient_origin(model.parameters())
    assert origin["value"] == "inf"
    assert origin["dtype"] == "float16"
    assert optimizer.state == {}


class Busy(nn.Module):
    """Everything that a second forward could disturb."""

    def __init__(self, mode):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.last = nn.Linear(8, 1)
        self.mode = mode
        self.calls = 0
        self.seen = []
        self.by_kind = {"all": []}
        self.hidden = torch.zeros(8)

    def block(self, x):
        x = self.drop(torch.relu(self.norm(self.first(x))))
        return self.lstm(x.unsqueeze(1))[0].squeeze(1)

    def forward(self, x):
        self.calls += 1
        REPLAYED.extend([1] * replaying())
        self.seen.append(float(x.detach().sum()) + random.random() + np.random.rand())  # noqa: NPY002
        self.by_kind["all"].append(self.calls)
        x = self.block(x) if self.mode is None else checkpoint(self.block, x, use_reentrant=self.mode)
        self.hidden = self.hidden * 0.5 + x.detach().mean(0)
        return self.last(x + self.hidden)


def train(mode, *, replays):
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    model = Busy(mode)
    fired = []
    model.first.weight.register_hook(lambda g: fired.append(1))
    replay = watched(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(4):
        x = torch.randn(6, 4, requires_grad=True)
        loss = model(x).pow(2).mean()
        if replays:
            replay._calls[-1]._outputs.clear()
            replay.loss_origin(loss)
        optimizer.zero_grad()
        loss.backward()
        if replays:
            replay.gradient_origin(())
        optimizer.step()
    return model, fired, torch.rand(3), random.random(), np.random.rand(), {}, x.grad  # noqa: NPY002


@pytest.mark.parametrize("mode", [None, False, True])
def test_training_with_and_without_replays_is_bit_equal(mode):
    REPLAYED.clear()
    plain, looked_at = train(mode, replays=False), train(mode, replays=True)
    assert len(REPLAYED) == 8  # four steps, each run again forward, and forward and backward
    for (name, one), other in zip(plain[0].state_dict().items(), looked_at[0].state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    assert plain[0].seen == looked_at[0].seen
    assert plain[0].by_kind == looked_at[0].by_kind
    assert plain[0].calls == looked_at[0].calls == 4
    assert torch.equal(plain[0].hidden, looked_at[0].hidden)
    assert plain[1] == looked_at[1]
    assert torch.equal(plain[2], looked_at[2])
    assert plain[3:5] == looked_at[3:5]
    assert torch.equal(plain[6], looked_at[6])


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_are_looked_into(reentrant):
    class Checkpointed(Body):
        def forward(self, x):
            hidden = self.first(x)
            return self.last(checkpoint(self.middle, hidden, use_reentrant=reentrant))

    model = Checkpointed(Log())
    replay = watched(model)
    loss = model(torch.randn(6, 4)).mean()
    assert replay.loss_origin(loss)["module"] == "middle"

    model = Checkpointed(Root())
    replay = watched(model)
    model(torch.randn(6, 4)).mean().backward()
    origin = replay.gradient_origin(model.parameters())
    assert origin["node"] == "SqrtBackward0"
    assert origin["module"] == "middle"
    assert origin["line"].endswith(line_with("sqrt at zero"))


def test_dropout_masks_are_the_same_in_the_replay():
    class OnlyWhereKept(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.drop = nn.Dropout(0.5)

        def forward(self, x):
            return (self.drop(torch.ones_like(self.first(x))) + 0 * self.first(x)).rsqrt()

    model = OnlyWhereKept()
    replay = watched(model)
    out = model(torch.randn(6, 4))
    origin = replay.loss_origin(out.mean())
    assert origin["elements"] == torch.isinf(out).flatten().nonzero()[:8, 0].tolist()


def test_the_job_that_calls_a_method_gets_an_incomplete_answer():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def loss(self, x):
            return (-self.layer(x).exp()).log().mean()

    model = Model()
    replay = watched(model)
    origin = replay.loss_origin(model.loss(torch.randn(6, 4)))
    assert origin["operation"] == "aten.log"
    assert not origin["complete"]
    assert "not called as a whole" in origin["why_incomplete"]


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def loss(self, x):
        return (self.layer(x / x.norm(dim=1, keepdim=True)) ** 2).mean()


@pytest.mark.parametrize(("value", "operation"), [(0.0, ""), (float("nan"), "batch")])
def test_what_a_method_makes_of_a_finite_batch_is_not_blamed_on_the_batch(value, operation):
    model, x = Normed(), torch.randn(6, 4)
    x[2] = value
    assert watched(model).loss_origin(model.loss(x))["operation"] == operation


@pytest.mark.parametrize(
    ("loss_of", "operation"),
    [
        (lambda d: ((d**2).sum(1) / 3.0).sqrt().mean(), "aten.sqrt"),
        (lambda d: ((d**2).sum(1) / 3.0).pow(0.5).mean(), "aten.pow"),
    ],
)
def test_squares_and_divisions_by_a_constant_have_no_infinite_slope(loss_of, operation):
    model = nn.Linear(4, 3, bias=False)
    replay = watched(model)
    x = torch.randn(6, 4)
    x[1] = 0
    loss = loss_of(model(x))
    loss.backward()
    assert torch.isfinite(loss)
    assert replay.gradient_origin(model.parameters())["operation"] == operation


def test_inputs_changed_in_place_are_noticed():
    model = Body(Log())
    replay = watched(model)
    x = torch.randn(6, 4)
    loss = model(x).mean()
    x.zero_()
    origin = replay.loss_origin(loss)
    assert not origin["complete"]
    assert "in place" in origin["why_incomplete"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_scripted_part_is_refused():
    scripted = Body(nn.Identity())
    scripted.middle = torch.jit.trace(nn.Linear(8, 8), torch.ones(1, 8))
    with torch.no_grad():
        scripted.last.weight.fill_(float("nan"))
    replay = watched(scripted)
    origin = replay.loss_origin(scripted(torch.randn(6, 4)).mean())
    assert not origin["complete"]
    assert "TorchScript" in origin["why_incomplete"]


def test_a_compiled_part_is_refused():
    model = Body(Log())
    replay = watched(model)
    loss = model(torch.randn(6, 4)).mean()
    model.middle.compile(backend="eager")
    origin = replay.loss_origin(loss)
    assert not origin["complete"]
    assert "compiled" in origin["why_incomplete"]


def test_code_that_would_communicate_is_stopped(tmp_path):
    class Reduced(nn.Module):
        def forward(self, x):
            total = x.detach().clone()
            torch.distributed.all_reduce(total)
            COLLECTIVES.append(1)
            return (x - total).log()

    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.FileStore(str(tmp_path / "s")), rank=0, world_size=1
    )
    try:
        model = Body(Reduced())
        replay = watched(model)
        loss = model(torch.randn(6, 4) - 10).sqrt().mean()
        del COLLECTIVES[1:]
        origin = replay.loss_origin(loss)
    finally:
        torch.distributed.destroy_process_group()
    assert len(COLLECTIVES) == 1
    assert not origin["complete"]
    assert "CollectiveError" in origin["why_incomplete"]


COLLECTIVES = []
REPLAYED = []


def test_a_forward_that_fails_the_second_time_leaves_everything_in_place():
    class Once(Body):
        def forward(self, x):
            if replaying():
                raise KeyError("gone")
            return super().forward(x)

    model = Once(Log())
    parameters = [id(p) for p in model.parameters()]
    replay = watched(model)
    origin = replay.loss_origin(model(torch.randn(6, 4)).mean())
    assert "KeyError" in origin["why_incomplete"]
    assert [id(p) for p in model.parameters()] == parameters
    assert not replaying()


def test_the_right_micro_batch_is_found():
    model = Body(Root())
    replay = watched(model)
    for bad in (False, True):
        model.middle = Root() if bad else nn.Tanh()
        loss = model(torch.full((2, 4), 2.0 if bad else 1.0)).mean()
        loss.backward()
    origin = replay.gradient_origin(model.parameters())
    assert origin["node"] == "SqrtBackward0"


def test_an_optimizer_step_ends_the_memory():
    model = Body(nn.Tanh())
    replay = watched(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        model(torch.randn(2, 4)).mean().backward()
    assert len(replay._calls) == 3
    optimizer.step()
    model(torch.randn(2, 4))
    assert len(replay._calls) == 1


def test_a_copy_and_a_pickle_of_the_model_are_not_disturbed():
    model = Body(nn.Tanh())
    replay = watched(model)
    out = model(torch.randn(2, 4))
    copy.deepcopy(list(model.parameters()))
    out.mean().backward()
    assert replay.gradient_origin(model.parameters()) is None


def test_the_time_limit_is_told():
    model = Body(Log())
    replay = watched(model)
    origin = replay.loss_origin(model(torch.randn(6, 4)).mean(), limit_seconds=0.0)
    assert not origin["complete"]
    assert "time" in origin["why_incomplete"]


@pytest.mark.parametrize("generator_first", [True, False])
def test_of_two_models_the_right_one_is_blamed(generator_first):
    generator, critic = nn.Linear(4, 4), Body(Log())
    replays = [watched(generator), watched(critic)]
    loss = critic(generator(torch.randn(6, 4))).mean()
    asked = replays if generator_first else replays[::-1]
    found = [origin for replay in asked if (origin := replay.loss_origin(loss))]
    assert found[0]["operation"] == "aten.log.default"
    assert found[0]["module"] == "middle"


def test_ddp_is_replayed_without_communication(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"))
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(Body(Root()))
        replay = watched(wrapped)
        for _ in range(2):
            wrapped.zero_grad()
            wrapped(torch.randn(6, 4)).mean().backward()
            origin = replay.gradient_origin(wrapped.parameters())
            assert origin["node"] == "SqrtBackward0"
            assert origin["module"] == "middle"
            assert origin["complete"], origin["why_incomplete"]
    finally:
        torch.distributed.destroy_process_group()


def test_a_kept_graph_does_not_keep_the_batch():
    model = Body(nn.Tanh())
    replay = watched(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    kept = []
    batch = torch.ones(6, 4)
    alive = weakref.ref(batch)
    for x in (batch, torch.ones(6, 4)):
        out = model(x)
        kept.append(out)
        out.mean().backward()
        optimizer.step()
    del batch, x
    replay.forget()
    assert alive() is None


def test_a_gradient_too_large_to_keep_is_replaced_and_the_answer_says_so():
    model = Body(Root())
    replay = Replay(model, largest_gradient=8)
    x = torch.randn(6, 4)
    replay.remember(model, (x,), {})
    out = model(x)
    replay.remember_output(out)
    out.mean().backward()
    origin = replay.gradient_origin(model.parameters())
    assert origin["node"] == "SqrtBackward0"
    assert "too large" in origin["why_incomplete"]


def test_gradients_spoiled_after_backward_are_not_ours_to_explain():
    model = Body(nn.Tanh())
    replay = watched(model)
    model(torch.randn(6, 4)).mean().backward()
    model.last.weight.grad.fill_(float("inf"))
    origin = replay.gradient_origin(model.parameters())
    assert origin["operation"] == ""
    assert "another rank" in origin["why_incomplete"]


class Penalised(Body):
    def __init__(self):
        super().__init__(nn.Tanh())
        self.gate = nn.Parameter(torch.zeros(3))

    def penalty(self):
        return torch.sqrt((self.gate**2).sum())  # root of a penalty


def test_a_penalty_on_the_weights_that_the_forward_never_sees():
    model = Penalised()
    replay = watched(model)
    loss = model(torch.randn(6, 4)).mean() + 0.1 * model.penalty()
    loss.backward()
    origin = replay.gradient_origin(model.parameters())
    assert origin["operation"] == "aten.sqrt"
    assert origin["line"].endswith(line_with("root of a penalty"))


def normalised(values):
    centred = values - values.mean()
    return centred / values.std()  # of equal ones


def test_a_weight_that_the_job_computed_itself_is_no_bad_batch():
    model = Body(nn.Tanh())
    replay = watched(model)
    share = torch.tensor([[0.5], [0.0]])
    weight = ((1 - share) / share).clamp(min=2.0)  # reads a share of nothing
    origin = replay.loss_origin((weight * model(torch.randn(2, 4))).mean())
    assert (origin["operation"], origin["batch_finite"], origin["phase"]) == ("aten.div", True, "loss")
    assert origin["inputs"]["zeros"] == 1
    assert origin["line"].endswith(line_with("reads a share of nothing"))


def test_a_weight_of_which_the_loss_holds_only_a_product_without_a_name():
    model = Body(nn.Tanh())
    replay = watched(model)
    counts = torch.tensor([6.0, 0.0])
    weights = 1.0 / counts  # of an empty class
    logp = torch.log_softmax(model(torch.randn(6, 4)).repeat(1, 2), -1)
    origin = replay.loss_origin(-(weights * torch.eye(2)[[0] * 6] * logp).mean())
    assert origin["operation"] == "aten.div"
    assert origin["line"].endswith(line_with("of an empty class"))


def test_a_summand_of_which_the_loss_keeps_nothing():
    model = Body(nn.Tanh())
    replay = watched(model)
    share = torch.tensor([[1.0], [0.0]])
    entropy = share * torch.log(share)  # of a certain answer
    origin = replay.loss_origin((entropy - model(torch.randn(2, 4))).sum())
    assert origin["operation"] == "aten.log"
    assert origin["line"].endswith(line_with("of a certain answer"))


def test_an_advantage_that_a_function_of_the_job_normalised():
    model = Body(nn.Tanh())
    replay = watched(model)
    returns = torch.tensor([3.0, 3.0])
    returns = normalised(returns)
    origin = replay.loss_origin((model(torch.randn(2, 4))[:, 0] * returns).mean())
    assert origin["operation"] == "batch"  # its argument is gone under the same name: nothing is claimed
    gains = torch.tensor([3.0, 3.0])
    advantage = normalised(gains)
    del returns
    origin = replay.loss_origin((model(torch.randn(2, 4))[:, 0] * advantage).mean())
    assert origin["operation"] == "aten.div"
    assert origin["line"].endswith(line_with("of equal ones"))


class Library:
    """Runs the loop of a job, and calls backward when the job's method has returned."""

    def loss_of(self, model, x):
        return torch.log(torch.relu(model(x)) - 1).mean()  # asked for by a library

    def fit(self, replay, model):
        ask = self.__class__.__dict__["loss_of"]
        return replay.loss_origin(ask(self, model, torch.randn(6, 4)))


def test_the_line_is_found_in_a_method_that_has_returned():
    model = Body(nn.Tanh())
    origin = Library().fit(watched(model), model)
    assert origin["operation"] == "aten.log"
    assert origin["line"].endswith(line_with("asked for by a library"))
