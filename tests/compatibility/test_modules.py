"""How a model is built, called, copied and stored."""

import copy
import dataclasses
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from compatibility.toys import batch, classifier, loss_of
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from recorded import events, series
from torch import nn


class InPlace(nn.Module):
    """Every activation writes over the output of the layer before it, and a residual is added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.drop = nn.Dropout2d(0.2, inplace=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.norm(self.first(x)))
        x = self.act(self.drop(self.second(x)).add_(x.detach()))
        return self.head(nn.functional.leaky_relu_(x.mean((2, 3))))


def watched_outputs(model: nn.Module, seen: list[float]) -> list[torch.utils.hooks.RemovableHandle]:
    """The largest output of each leaf call, read the moment it is there."""

    def look(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        seen.append(float(output.detach().abs().max()))

    return [m.register_forward_hook(look) for m in model.modules() if not list(m.children())]


@pytest.mark.setting(
    "in-place activations, dropout and residuals; channels-last",
    records=["loss", "gradient_norm", "parameter_gradient_norm", "module_output_absmax"],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels-last"])
def test_inplace_activations(trial: Trial, layout: torch.memory_format) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = InPlace().to(memory_format=layout)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        seen: list[float] = []
        handles = watched_outputs(model, seen)
        with watch(model, optimizer):
            for step in range(5):
                seen.clear()
                x = torch.randn(8, 1, 6, 6).to(memory_format=layout)
                loss = nn.functional.cross_entropy(model(x), torch.randint(0, 3, (8,)))
                truth.note_each(step, module_output_absmax=seen)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        for handle in handles:
            handle.remove()
        return model

    trial.run(job)


@dataclasses.dataclass
class Answer:
    """What Hugging Face models give back, more or less."""

    loss: torch.Tensor
    logits: torch.Tensor
    hidden: tuple[torch.Tensor, ...]


class Speaker(nn.Module):
    """Called with keywords and a dictionary, answers with a data class; recurrent, with attention in between."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 20)

    def forward(self, *, ids: torch.Tensor, extras: dict[str, torch.Tensor]) -> Answer:
        hidden, _ = self.rnn(self.embed(ids))
        hidden, _ = self.attend(hidden, hidden, hidden, key_padding_mask=extras["mask"])
        logits = self.head(hidden)
        return Answer(nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten()), logits, (hidden,))


@pytest.mark.setting(
    "keyword and dictionary inputs, a data class as output; LSTM, attention with a mask",
    records=["loss", "gradient_norm", "batch_items", "parameter_gradient_norm"],
)
def test_structured_inputs_and_outputs(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = Speaker()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            for step in range(4):
                ids = torch.randint(0, 20, (4, 7))
                answer = model(ids=ids, extras={"mask": ids < 3})
                optimizer.zero_grad()
                answer.loss.backward()
                truth.note(step, loss=answer.loss, batch_items=4, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)


@pytest.mark.setting(
    "evaluation under `no_grad` or `inference_mode`, in either mode, amid training",
    records=["loss", "gradient_norm", "batch_items", "backward_passes"],
)
@pytest.mark.parametrize("guard", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("mode", [False, True], ids=["eval", "train"])
def test_evaluation_amid_training(trial: Trial, guard: Callable[[], torch.no_grad], *, mode: bool) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(6):
                loss = loss_of(model)
                if step % 2:
                    model.train(mode)
                    with guard():
                        for _ in range(5):
                            model(torch.randn(16, 6))
                    model.train()
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, batch_items=8, backward_passes=1)
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)

    assert not events(trial.directory, "serving")
    assert set(series(trial.directory, "step_seconds")) == {2, 4}, "steps with an evaluation have no duration"


class Guided(nn.Module):
    """Its loss is a method: ``forward`` is never called, as in many a research code."""

    def __init__(self) -> None:
        super().__init__()
        self.net = classifier()

    def loss(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(x), y)


@pytest.mark.setting(
    "a model whose `forward` is not called, only its methods",
    records=["loss", "gradient_norm"],
    not_checked={
        "forward": "its forward was not called, or only inside compiled or transformed code, where no hook runs"
    },
)
def test_a_model_that_is_called_by_method(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = Guided()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                loss = model.loss(*batch())
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)


@pytest.mark.setting(
    "gradients of gradients: a penalty on the slope, `create_graph`", records=["loss", "gradient_norm"]
)
def test_gradients_of_gradients(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 1))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            for step in range(4):
                x = torch.randn(8, 6, requires_grad=True)
                y = model(x).sum()
                (slope,) = torch.autograd.grad(y, x, create_graph=True)
                loss = y.pow(2) / 64 + (slope.norm(dim=1) - 1).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)


@pytest.mark.setting("weight norm, spectral norm and other parametrizations", records=["loss", "gradient_norm"])
def test_parametrizations(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(6, 16)),
            nn.ReLU(),
            nn.utils.parametrizations.spectral_norm(nn.Linear(16, 3)),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                loss = loss_of(model)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def saved(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def checkpointed(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    made = classifier()
    made.load_state_dict(torch.load(buffer))
    return made


@pytest.mark.setting(
    "`pickle`, `torch.save`, `state_dict` and `deepcopy` of a watched model in the middle of a step",
    records=["loss", "gradient_norm", "batch_items"],
)
@pytest.mark.parametrize("again", [pickled, saved, checkpointed, copy.deepcopy])
def test_a_stored_model_is_the_model_and_reports_nothing(trial: Trial, again: Callable[[nn.Module], nn.Module]) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        copies = []
        with watch(model, optimizer):
            for step in range(4):
                loss = loss_of(model)
                state = torch.get_rng_state()
                copies.append(again(model))
                torch.set_rng_state(state)  # a new classifier draws its weights
                copies[-1](torch.randn(4, 6))
                optimizer.zero_grad()
                loss.backward()
                pickle.loads(pickle.dumps(optimizer))
                copy.deepcopy(optimizer)
                truth.note(step, loss=loss, batch_items=8, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model, copies

    trial.run(job)


@pytest.mark.setting(
    "a model saved with `torch.save` while it was watched, loaded where torchvitals is not installed",
    records=["loss"],
)
def test_a_saved_model_needs_nothing_of_ours(trial: Trial, tmp_path: Path) -> None:
    stored = tmp_path / "model.pt"

    def job(watch: Watch, truth: Truth) -> object:
        model = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            loss = loss_of(model)
            loss.backward()
            truth.note(0, loss=loss)
            optimizer.step()
            torch.save(model, stored)
        return model

    trial.run(job)

    code = (
        "import sys, torch\n"
        "model = torch.load(sys.argv[1], weights_only=False)\n"
        "model(torch.ones(2, 6))\n"
        "sys.exit(any(name.startswith('torchvitals.') for name in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(stored)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.setting(
    "`torch.func`: gradients of each sample by `vmap` and `grad`, averaged and stepped",
    records=["gradient_norm", "parameter_gradient_norm"],
    not_checked={
        "forward": "its forward was not called, or only inside compiled or transformed code, where no hook runs"
    },
)
def test_functional_transforms(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

        def loss_of_one(weights: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            answer = torch.func.functional_call(model, weights, (x.unsqueeze(0),))
            return nn.functional.cross_entropy(answer, y.unsqueeze(0))

        each = torch.func.vmap(torch.func.grad(loss_of_one), in_dims=(None, 0, 0))
        with watch(model, optimizer):
            for step in range(4):
                weights = {name: p.detach() for name, p in model.named_parameters()}
                gradients = each(weights, *batch())
                for name, parameter in model.named_parameters():
                    parameter.grad = gradients[name].mean(0)
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)
