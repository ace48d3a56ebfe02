"""Training without torch.optim: the job changes its weights itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from compatibility.toys import classifier, loss_of
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm
from recorded import events, series
from torch import nn

UNSEEN = {"parameters": "weights change without a torch.optim optimizer: no parameter is looked at by itself"}
BESIDE = {
    "parameters": "weights change without a torch.optim optimizer: no parameter is looked at by itself",
    "learning_rate": "weights change without a torch.optim optimizer, and not along their gradient: a number of the "
    "job's own",
}
RATE = 0.1


def in_place(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=0.1)
    model.zero_grad()


def by_data(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.add_(parameter.grad.data, alpha=-0.1)
        parameter.grad.data.zero_()


@pytest.mark.setting(
    "SGD written by hand, also with micro-batches; given to `attach` without an optimizer",
    records=["loss", "gradient_norm", "learning_rate", "batch_items", "backward_passes"],
    not_checked=UNSEEN,
)
@pytest.mark.parametrize("update", [in_place, by_data])
@pytest.mark.parametrize("micro", [1, 3])
def test_weights_changed_by_hand(trial: Trial, update: Callable[[nn.Module], None], micro: int) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        with watch(model):
            for step in range(5):
                total = 0.0
                for _ in range(micro):
                    loss = loss_of(model) / micro
                    loss.backward()
                    total += loss.item()
                truth.note(step, loss=total, gradient_norm=gradient_norm(model.parameters()))
                truth.note(step, batch_items=8 * micro, backward_passes=micro, learning_rate=RATE)
                update(model)
        return model

    trial.run(job, exact=1e-3)  # the rate is read off weights in float32


def along(model: nn.Module, share: float) -> None:
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * parameter.grad.norm(), alpha=share)
        parameter.grad = None


@pytest.mark.setting(
    "an update by hand that does not go along the gradient",
    records=["loss", "gradient_norm"],
    not_checked=BESIDE,
)
def test_no_rate_is_told_of_a_step_beside_the_gradient(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        with watch(model):
            for step in range(5):
                loss = loss_of(model)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                along(model, 0.01)
        return model

    trial.run(job)
    assert not series(trial.directory, "learning_rate")


@pytest.mark.setting(
    "`torch.autograd.grad` of the model's parameters",
    records=["loss", "gradient_norm", "learning_rate"],
    not_checked=UNSEEN,
)
def test_gradients_that_were_asked_for(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        with watch(model):
            for step in range(5):
                loss = loss_of(model)
                found = torch.autograd.grad(loss, list(model.parameters()))
                norm = torch.stack([gradient.norm() for gradient in found]).norm()
                truth.note(step, loss=loss, gradient_norm=norm, learning_rate=RATE)
                with torch.no_grad():
                    for parameter, gradient in zip(model.parameters(), found, strict=True):
                        parameter.sub_(gradient, alpha=RATE)
        return model

    trial.run(job, exact=1e-3)


HEAD = """
import json, torch
torch.manual_seed(0)
x = torch.randn(64, 6)
y = x @ torch.arange(6.0)
weight, bias = torch.zeros(6, requires_grad=True), torch.zeros(1, requires_grad=True)
losses, norms, rates = [], [], []

def loss_of(weight, bias):
    return (x @ weight + bias - y).square().mean()

def note(loss, gradients, rate):
    losses.append(loss.item())
    norms.append(torch.cat(gradients).norm().item())
    rates.append(rate)
"""
IN_PLACE = """
for step in range(8):
    rate = 0.1 if step < 4 else 0.05
    loss = loss_of(weight, bias)
    loss.backward()
    note(loss, [weight.grad, bias.grad], rate)
    for tensor in (weight, bias):
        tensor.data -= rate * tensor.grad
        tensor.grad.zero_()
"""
ANEW = """
for step in range(8):
    rate = 0.1 if step < 4 else 0.05
    loss = loss_of(weight, bias)
    loss.backward()
    note(loss, [weight.grad, bias.grad], rate)
    weight = (weight - rate * weight.grad).detach().requires_grad_()
    bias = (bias - rate * bias.grad).detach().requires_grad_()
"""
ASKED = """
for step in range(8):
    rate = 0.1 if step < 4 else 0.05
    loss = loss_of(weight, bias)
    gradients = torch.autograd.grad(loss, [weight, bias])
    note(loss, gradients, rate)
    weight, bias = ((w - rate * g).detach().requires_grad_() for w, g in zip((weight, bias), gradients))
"""
TRANSFORMED = """
weight, bias = weight.detach(), bias.detach()
for step in range(8):
    rate = 0.1 if step < 4 else 0.05
    gradients, loss = torch.func.grad_and_value(loss_of, argnums=(0, 1))(weight, bias)
    note(loss, gradients, rate)
    weight, bias = (w - rate * g for w, g in zip((weight, bias), gradients))
"""
TAIL = """
print(json.dumps({"loss": losses, "gradient_norm": norms, "learning_rate": rates, "weights": weight.tolist()}))
"""
SPOILT = """
for step in range(8):
    loss = loss_of(weight, bias)
    if step == 5:
        loss = loss + (weight[0] - weight[0].detach()).clamp(max=0.0).sqrt()
    UPDATE
"""
ATTACK = """
model = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
for step in range(8):
    image = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(image).sum(), image)
    x = x + 0.1 * gradient.sign()
"""


SCRIPT = """
import json, sys, torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
losses, norms = [], []
for step in range(8):
    x = torch.randn(8, 6)
    loss = nn.functional.cross_entropy(model(x), x[:, :3].argmax(1))
    model.zero_grad()
    loss.backward()
    losses.append(loss.item())
    norms.append(float(sum(p.grad.double().pow(2).sum() for p in model.parameters()).sqrt()))
    with torch.no_grad():
        for p in model.parameters():
            p.sub_(p.grad, alpha=0.1)
    model.eval()
    with torch.no_grad():
        model(x)
    model.train()
print(json.dumps({"loss": losses, "gradient_norm": norms, "weights": [p.tolist() for p in model.parameters()]}))
"""


def run(directory: Path, script: str, **more: str) -> str:
    """Run it as ``torchvitals run`` would if ``TORCHVITALS_RUN`` is given; what it printed."""
    spec = find_spec("torchvitals.hooks")
    assert spec is not None
    assert spec.submodule_search_locations
    paths = [str(Path(spec.submodule_search_locations[0]) / "zero_code"), os.environ.get("PYTHONPATH", "")]
    (directory / "script.py").write_text(script)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TORCHVITALS_DIR": str(directory / "runs"),
    }
    command = [sys.executable, "script.py"]
    done = subprocess.run(
        command, cwd=directory, env={**environment, **more}, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    assert "torchvitals" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("way", [IN_PLACE, ANEW, ASKED, TRANSFORMED], ids=["in place", "anew", "asked", "transformed"])
def test_weights_that_belong_to_no_module(tmp_path: Path, way: str) -> None:
    script = HEAD + way + TAIL
    bare, watched = run(tmp_path, script), run(tmp_path, script, TORCHVITALS_RUN="by-hand")

    assert watched == bare
    told = json.loads(watched)
    recorded = {signal: list(series(tmp_path / "runs", signal).values()) for signal in told if signal != "weights"}
    seen = len(recorded["loss"])  # who makes the weights anew leaves nothing behind that tells of the last step
    assert seen == 8 if way is IN_PLACE else seen == 7
    for signal, values in recorded.items():
        assert values == pytest.approx(told[signal][:seen], rel=1e-3)
    assert {event.details["what"] for event in events(tmp_path / "runs", "not_checked")} == {"parameters", "modules"}


@pytest.mark.parametrize(
    "update",
    [
        "loss.backward(); weight.data -= 0.1 * weight.grad; weight.grad = None; bias.grad = None",
        "(found,) = torch.autograd.grad(loss, [weight]); weight = (weight - 0.1 * found).detach().requires_grad_()",
    ],
)
def test_the_line_that_spoils_the_gradient_of_a_bare_tensor(tmp_path: Path, update: str) -> None:
    script = HEAD + SPOILT.replace("UPDATE", update)
    run(tmp_path, script, TORCHVITALS_RUN="by-hand")

    (origin,) = events(tmp_path / "runs", "origin")

    spoiling = next(number for number, line in enumerate(script.splitlines(), 1) if "sqrt()" in line)
    assert (origin.step, origin.details["operation"]) == (5, "aten.sqrt")
    assert origin.details["line"].endswith(f"script.py:{spoiling}")


COMPILED = """
import torch
from torch._dynamo.utils import counters

net = torch.nn.Linear(4, 1)

@torch.compile(backend="aot_eager")
def slope(x):
    (found,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    return found.square().mean()

@torch.compile(backend="aot_eager", fullgraph=True)
def transformed(x):
    return torch.func.grad(lambda z: z.sin().square().sum())(x)

for _ in range(3):
    x = torch.ones(8, 4, requires_grad=True)
    print(transformed(x.detach()).sum().item())
    try:
        slope(x).backward()
    except RuntimeError as error:
        print(error)
print(dict(counters["graph_break"]), dict(counters["stats"]))
"""


def test_compiled_code_that_differentiates_is_compiled_as_without_us(tmp_path: Path) -> None:
    assert run(tmp_path, COMPILED, TORCHVITALS_RUN="by-hand") == run(tmp_path, COMPILED)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_weights_that_grow_or_are_complex_have_no_rate_and_lose_no_step(tmp_path: Path, dtype: str) -> None:
    script = f"""
import torch
torch.manual_seed(0)
weight = torch.ones(2, dtype=torch.{dtype}, requires_grad=True)
for step in range(6):
    loss = weight.abs().square().sum()
    loss.backward()
    weight = torch.cat([(weight - 0.1 * weight.grad).detach(), torch.ones(1)]).requires_grad_()
"""
    run(tmp_path, script, TORCHVITALS_RUN="by-hand")

    assert len(series(tmp_path / "runs", "loss")) == 5
    assert not series(tmp_path / "runs", "learning_rate")
    assert not events(tmp_path / "runs", "fuse")


def test_an_image_is_no_weight(tmp_path: Path) -> None:
    run(tmp_path, HEAD + ATTACK, TORCHVITALS_RUN="by-hand")

    assert not series(tmp_path / "runs", "loss")


def test_a_script_that_has_no_optimizer(tmp_path: Path) -> None:
    """As ``torchvitals run`` would watch it."""
    bare, watched = run(tmp_path, SCRIPT), run(tmp_path, SCRIPT, TORCHVITALS_RUN="by-hand")

    assert watched == bare
    told = json.loads(watched)
    for signal in ("loss", "gradient_norm"):
        assert list(series(tmp_path / "runs", signal).values()) == pytest.approx(told[signal], rel=1e-5)
    assert {event.details["what"] for event in events(tmp_path / "runs", "not_checked")} == set(UNSEEN)
    assert not events(tmp_path / "runs", "serving")
    assert [event.details["code"] for event in events(tmp_path / "runs", "exit")] == [0]
