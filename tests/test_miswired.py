"""Relations of sound training loops: each broken one is told with its cause, and its healthy twin is silent."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    kl_div,
    mse_loss,
    nll_loss,
    pad,
)
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.loss_graph import squashed_twice, start_of_classifier
from torchvitals.hooks.modes import Modes
from torchvitals.hooks.worker_batches import WorkerBatches

STEPS = 120


def net(dropout=0.1):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 4))


def batch():
    inputs = torch.randn(16, 8)
    return inputs, inputs[:, :4].argmax(1)


def told(directory, model, train, optimizer=None):
    """(kind, cause, place) of every incident of a training; ``train(model, optimizer, step)`` is one step."""
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.05)
    with attach(model, optimizer, directory=directory, overhead=1.0):
        for step in range(STEPS):
            train(model, optimizer, step)
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where) for i in diagnose_directory(run).incidents]


def learn(model, optimizer, _step=0, loss=cross_entropy):
    inputs, labels = batch()
    optimizer.zero_grad()
    loss(model(inputs), labels).backward()
    optimizer.step()


def evaluate(model, forwards=6):
    with torch.no_grad():
        for _ in range(forwards):
            model(torch.randn(16, 8))


def test_a_softmax_under_a_softmax(tmp_path):
    model = nn.Sequential(net(), nn.Softmax(-1))

    (incident,) = told(tmp_path, model, learn)

    assert incident[:2] == ("miswired", "double_softmax")
    assert incident[2].startswith("tests/test_miswired.py:") or "test_miswired.py:" in incident[2]


@pytest.mark.parametrize(("dim", "rows"), [(0, 16), (1, 16), (0, 4)], ids=["the batch", "the classes", "a square"])
def test_a_softmax_over_the_batch(tmp_path, dim, rows):
    def train(model, optimizer, _step):
        inputs, labels = batch()
        optimizer.zero_grad()
        nll_loss(model(inputs[:rows]).log_softmax(dim), labels[:rows]).backward()
        optimizer.step()

    found = told(tmp_path, net(), train)

    assert [incident[:2] for incident in found] == [("miswired", "softmax_over_batch")] * (dim == 0 and rows == 16)


def test_a_negative_log_likelihood_of_scores(tmp_path):
    (incident,) = told(tmp_path, net(), lambda model, optimizer, step: learn(model, optimizer, step, loss=nll_loss))

    assert incident[:2] == ("miswired", "missing_log_softmax")
    assert "test_miswired.py:" in incident[2]


@pytest.mark.parametrize("squash", ["softmax", "log_softmax"])
def test_a_student_is_compared_in_logarithms(tmp_path, squash):
    def distil(model, optimizer, _step):
        inputs, labels = batch()
        optimizer.zero_grad()
        taught = (4 * nn.functional.one_hot(labels, 4)).float().softmax(1)
        kl_div(getattr(model(inputs), squash)(1), taught, reduction="batchmean").backward()
        optimizer.step()

    found = told(tmp_path, net(), distil)

    assert [incident[:2] for incident in found] == [("miswired", "missing_log_softmax")] * (squash == "softmax")


@pytest.mark.parametrize("how", ["never", "once", "by hand", "in evaluation mode"])
def test_an_optimizer_that_is_never_asked_to_step(tmp_path, how):
    """As under accumulation over more batches than an epoch has; scores of samples are taken in evaluation mode."""

    def train(model, optimizer, step):
        if how == "in evaluation mode":
            model.eval()
        inputs, labels = batch()
        cross_entropy(model(inputs), labels).backward()
        if how == "once" and step == 100:
            optimizer.step()
        if how == "by hand":
            for parameter in model.parameters():
                parameter.data.sub_(0.05 * parameter.grad)
                parameter.grad = None

    expected = [("miswired", "missing_step", "0")] if how == "never" else []
    assert told(tmp_path, net(), train) == expected


def test_an_encoder_under_no_grad_is_cut_off_and_no_stranger(tmp_path):
    encoder, model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)), net()

    def train(model, optimizer, step):
        inputs, labels = batch()
        with torch.no_grad():
            codes = encoder(inputs)
        optimizer.zero_grad()
        cross_entropy(model(codes), labels).backward()
        optimizer.step()

    everything = torch.optim.SGD([*encoder.parameters(), *model.parameters()], lr=0.05)
    with attach([encoder, model], everything, directory=tmp_path, overhead=1.0):
        for step in range(STEPS):
            train(model, everything, step)
    (incident,) = diagnose_directory(next(path for path in tmp_path.iterdir() if path.is_dir())).incidents

    assert (incident.kind, incident.cause) == ("stuck_parameters", "frozen_parameters")
    assert incident.confidence > 0.8


@pytest.mark.parametrize("how", ["forgotten", "added", "a new optimizer", "frozen", "for one batch"])
def test_a_weight_that_came_after_the_optimizer(tmp_path, how):
    def train(model, optimizer, step):
        if step == 30 and how in ("forgotten", "added", "frozen"):
            model[3].weight = nn.Parameter(model[3].weight.detach().clone(), requires_grad=how != "frozen")
            if how == "added":
                optimizer.add_param_group({"params": [model[3].weight]})
        if how == "for one batch":
            model.delta = nn.Parameter(torch.zeros(1))
            (0.0 * model.delta.sum()).backward()
        learn(model, train.optimizer if how == "a new optimizer" and step >= 30 else optimizer)
        if how == "a new optimizer" and step == 29:
            model[3].weight = nn.Parameter(model[3].weight.detach().clone())
            train.optimizer = torch.optim.SGD(model.parameters(), lr=0.05)

    found = told(tmp_path, net(), train)

    assert [incident[:2] for incident in found] == [("stuck_parameters", "stale_optimizer_parameters")] * (
        how == "forgotten"
    )


def test_training_goes_on_in_evaluation_mode(tmp_path):
    def train(model, optimizer, step):
        learn(model, optimizer)
        if step == 40:
            model.eval()
            evaluate(model)

    assert told(tmp_path, net(), train) == [("miswired", "train_mode_missing", "model")]


def test_evaluations_in_training_mode(tmp_path):
    def train(model, optimizer, step):
        learn(model, optimizer)
        if step % 30 == 29:
            evaluate(model)

    assert told(tmp_path, net(), train) == [("miswired", "eval_mode_missing", "")]


@pytest.mark.parametrize(("rows", "expected"), [(200, [("miswired", "eval_mode_missing", "")]), (16, [])])
def test_a_validation_set_in_a_single_forward_is_an_evaluation_and_a_look_at_one_batch_is_none(
    tmp_path, rows, expected
):
    def train(model, optimizer, step):
        learn(model, optimizer)
        if step % 25 == 24:
            with torch.no_grad():
                model(torch.randn(rows, 8))

    assert told(tmp_path, net(), train) == expected


@pytest.mark.parametrize(("draws", "expected"), [(2, [("miswired", "eval_mode_missing", "")]), (5, [])])
def test_draws_of_one_batch_are_no_forgotten_mode(tmp_path, draws, expected):
    def train(model, optimizer, step):
        learn(model, optimizer)
        if step % 30 == 29:
            with torch.no_grad():
                for _ in range(4):
                    inputs = torch.randn(16, 8)
                    torch.stack([model(inputs) for _ in range(draws)]).std(0)

    assert told(tmp_path, net(), train) == expected


@pytest.mark.parametrize(("rate", "expected"), [(0.0, []), (1e-30, ["stuck_parameters"])])
def test_a_trunk_that_waits_for_its_head_at_rate_zero_is_not_stuck(tmp_path, rate, expected):
    model = net(0.0)
    groups = [{"params": model[0].parameters(), "lr": rate}, {"params": model[3].parameters()}]

    found = told(tmp_path, model, learn, torch.optim.SGD(groups, lr=0.05))

    assert [incident[0] for incident in found] == expected


class Careless(nn.Module):
    """Drops in evaluation mode, too, unless it is told not to."""

    def __init__(self, heeds):
        super().__init__()
        self.inner, self.heeds = net(0.0), heeds

    def forward(self, rows):
        return nn.functional.dropout(self.inner(rows), 0.2, training=self.training or not self.heeds)


@pytest.mark.parametrize("heeds", [True, False])
def test_a_functional_dropout_that_ignores_the_mode(tmp_path, heeds):
    def train(model, optimizer, step):
        model.train()
        learn(model, optimizer)
        if step % 30 == 29:
            evaluate(model.eval())

    found = told(tmp_path, Careless(heeds), train)

    assert [incident[:2] for incident in found] == ([] if heeds else [("miswired", "eval_mode_missing")])
    assert heeds or "test_miswired.py:" in found[0][2]


@pytest.mark.parametrize("keeps_gradients", [True, False])
def test_frozen_parameters_that_move(tmp_path, keeps_gradients):
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def train(model, optimizer, step):
        if step == 50:
            model[0].requires_grad_(requires_grad=False)
        inputs, labels = batch()
        optimizer.zero_grad(set_to_none=not keeps_gradients)
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    found = told(tmp_path, model, train, optimizer)

    assert found == ([("miswired", "frozen_but_updated", "0")] if keeps_gradients else [])


@pytest.mark.parametrize(("to_none", "kind"), [(True, "stuck_parameters"), (False, "vanishing")])
def test_gradients_cleared_before_the_step(tmp_path, to_none, kind):
    def train(model, optimizer, _step):
        inputs, labels = batch()
        cross_entropy(model(inputs), labels).backward()
        optimizer.zero_grad(set_to_none=to_none)
        optimizer.step()

    assert told(tmp_path, net(), train) == [(kind, "misplaced_zero_grad", "optimizer")]


def test_a_loss_of_nothing(tmp_path):
    def train(model, optimizer, _step):
        learn(model, optimizer, loss=lambda scores, labels: cross_entropy(scores * torch.zeros(16, 1), labels))

    assert [incident[:2] for incident in told(tmp_path, net(), train)] == [("vanishing", "constant_loss")]


def easy():
    """Two classes that one weight tells apart: learnt within tens of steps."""
    inputs = torch.randn(16, 8)
    return inputs + 4 * pad((labels := inputs[:, :1].gt(0).long()).float() - 0.5, (0, 7)), labels[:, 0]


@pytest.mark.parametrize("what", ["drawn anew", "through data", "swapped and back", "one layer"])
def test_weights_written_to_between_two_steps(tmp_path, what):
    def train(model, optimizer, step):
        if step == 90 and what == "drawn anew":
            for layer in (model[0], model[3]):
                layer.reset_parameters()
        if step == 90 and what == "through data":
            for parameter in model.parameters():
                parameter.data.copy_(0.3 * torch.randn_like(parameter))
        if step in (60, 90) and what == "swapped and back":
            model.load_state_dict(copy.deepcopy(model.state_dict()))
        if step == 90 and what == "one layer":
            with torch.no_grad():
                model[3].bias.sub_(0.1)
        inputs, labels = easy()
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        optimizer.step()

    found = told(tmp_path, net(0.0), train)

    gone = what in ("drawn anew", "through data")
    expected = [("lost_progress", "weights_overwritten", "parameters")] if gone else []
    assert found == expected


def test_what_a_wild_net_begins_with(tmp_path):
    model = net()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(100)

    assert [incident[:2] for incident in told(tmp_path, model, learn)] == [("explosion", "bad_initialization")]


def test_the_other_net_of_a_pair_is_no_evaluation(tmp_path):
    teacher = net()

    def train(model, optimizer, _step):
        inputs, _ = batch()
        with torch.no_grad():
            goal = teacher(inputs)
            again = model(inputs)
        optimizer.zero_grad()
        mse_loss(model(inputs), (goal + again) / 2).backward()
        optimizer.step()

    assert told(tmp_path, net(), train) == []


def test_losses_that_squash_once():
    scores = torch.randn(6, 4, requires_grad=True)
    labels = torch.arange(6) % 4
    plain = cross_entropy(scores, labels) + 0.1 * scores.softmax(-1).square().mean()
    attention = cross_entropy(scores.softmax(-1) @ torch.randn(4, 4), labels)

    assert squashed_twice(plain, []) is None
    assert squashed_twice(attention, []) is None
    assert squashed_twice(3 * cross_entropy(scores.softmax(-1).reshape(6, 4), labels) / 2, [])["inner"] == "softmax"
    assert squashed_twice(binary_cross_entropy_with_logits(scores.sigmoid(), scores.detach()), [])["outer"]


def test_the_first_loss_is_worked_out_whatever_its_scale():
    scores = torch.zeros(6, 4, requires_grad=True)
    labels = torch.arange(6) % 4

    found = start_of_classifier(1000 * cross_entropy(scores, labels, reduction="sum"))

    assert found["loss"] == pytest.approx(found["chance"])


@pytest.mark.parametrize("columns", [(1.0, 1.0), (1.0, 4e4)], ids=["standardised", "an income in euros"])
@pytest.mark.parametrize("squashed", [False, True])
def test_a_feature_that_nobody_scaled_shows_in_a_binary_loss(tmp_path, columns, squashed):
    torch.manual_seed(1)
    scale = torch.tensor(columns)
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))

    def train(model, optimizer, _step):
        inputs = torch.randn(64, 2)
        answers, labels = model(inputs * scale), inputs.sum(1, keepdim=True).gt(0).float()
        if squashed:
            loss = binary_cross_entropy(answers.sigmoid(), labels)
        else:
            loss = binary_cross_entropy_with_logits(answers, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    found = told(tmp_path, model, train, torch.optim.AdamW(model.parameters(), 1e-3))

    expected = [("explosion", "missing_normalization", "input")] if columns[1] > 1 else []
    assert found == expected


@pytest.mark.parametrize(
    ("gain", "scale", "told"),
    [(1.3, 1.0, [("explosion", "bad_initialization")]), (0.8, 1.0, []), (0.8, 1e-4, [])],
    ids=["explodes over time", "well", "targets that are small"],
)
def test_answers_out_of_all_proportion_before_any_update(tmp_path, gain, scale, told):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.enter, self.again, self.leave = nn.Linear(1, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 1)
            nn.init.eye_(self.again.weight).data.mul_(gain)

        def forward(self, x):
            state = torch.zeros(len(x), 16)
            for part in x.unbind(1):
                state = torch.relu(self.enter(part[:, None]) + self.again(state))
            return self.leave(state)

    torch.manual_seed(0)
    model = Recurrent()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    with attach(model, optimizer, directory=tmp_path, overhead=1.0):
        for _ in range(60):
            x = torch.rand(16, 60) / 60
            optimizer.zero_grad()
            nn.functional.mse_loss(model(x), scale * x.sum(1, keepdim=True)).backward()
            optimizer.step()
    (run,) = [path for path in tmp_path.iterdir() if path.is_dir()]

    assert [(incident.kind, incident.cause) for incident in diagnose_directory(run).incidents] == told


def test_modes_count_only_models_on_which_they_have_a_say():
    modes, scalars = Modes(), {}

    modes.called(net(0.0), [], torch.zeros(1), scalars, 0)
    assert scalars == {}
    for _ in range(3):
        modes.called(net(), [], torch.zeros(1), scalars, 0)
    modes.called(net(), [], torch.zeros(1), scalars, 1)
    assert scalars == {"train_mode_evaluations": 3.0, "train_mode_items": 3.0}


class Loader:
    _num_workers = 2


@pytest.mark.parametrize(("equal", "told_of"), [(True, True), (False, False)])
def test_workers_that_draw_the_same_samples(equal, told_of):
    batches, loader, found = WorkerBatches(), Loader(), []

    for number in range(16):
        rows = torch.full((4, 3), float(number // 2 if equal else number))
        found.append(batches.loaded(loader, [rows, torch.zeros(4)]))

    assert any(found) is told_of


@pytest.mark.parametrize("momentum", [1.0, 0.99])
def test_a_momentum_that_never_fades(tmp_path, momentum):
    model = net(0.0)

    found = told(tmp_path, model, learn, torch.optim.SGD(model.parameters(), lr=1e-4, momentum=momentum))

    assert found == ([("miswired", "learning_rate_too_high", "optimizer")] if momentum == 1.0 else [])


@pytest.mark.parametrize("taken", ["the weights", "all", "for another task"])
def test_a_run_that_is_resumed_without_its_optimizer(tmp_path, taken):
    first = net(0.0)
    before = torch.optim.Adam(first.parameters(), lr=2e-3)
    for _ in range(20):
        learn(first, before)
    torch.save({"net": first.state_dict(), "optim": {"main": before.state_dict()}, "epoch": 3}, tmp_path / "last.pt")
    runs = tmp_path / "runs"
    runs.mkdir()
    model = net(0.0)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-4 if taken == "for another task" else 2e-3)

    def train(model, optimizer, step):
        if not step:
            saved = torch.load(tmp_path / "last.pt")
            model.load_state_dict(saved["net"])
            if taken == "all":
                optimizer.load_state_dict(saved["optim"]["main"])
        learn(model, optimizer)

    found = told(runs, model, train, optimizer)

    assert found == ([("miswired", "missing_optimizer_state", "optimizer")] if taken == "the weights" else [])


class Staged(nn.Module):
    """Freezes its body whenever it is put into training mode, as it is told."""

    def __init__(self, frozen=True, early=False):
        super().__init__()
        self.body, self.head, self.frozen = net(0.0)[:2], nn.Linear(16, 4), frozen
        if early:
            self.train()

    def forward(self, rows):
        return self.head(self.body(rows))

    def freeze(self):
        for parameter in self.body.parameters():
            parameter.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        if self.frozen:
            self.freeze()
        return self


def first_called_late(model, optimizer, step):
    learn(model, optimizer)
    if step % 40 == 39:
        evaluate(model.eval())
        model.train()


def asked_for_in_the_middle(model, optimizer, step):
    if step == 60:
        model.frozen = True
        model.train()
    learn(model, optimizer)


def by_the_job(model, optimizer, step):
    if step == 60:
        for parameter in model[0].parameters():
            parameter.requires_grad = False
    learn(model, optimizer)


@pytest.mark.parametrize(
    ("model", "train", "expected"),
    [
        (Staged, first_called_late, [("miswired", "frozen_but_updated", "body.0")]),
        (lambda: Staged(early=True), first_called_late, []),
        (lambda: Staged(frozen=False), first_called_late, []),
        (lambda: Staged(frozen=False), asked_for_in_the_middle, []),
        (lambda: net(0.0), by_the_job, []),
    ],
)
def test_layers_that_a_model_freezes_only_after_they_were_trained(tmp_path, model, train, expected):
    assert told(tmp_path, model(), train) == expected
