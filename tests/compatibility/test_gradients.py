"""What happens to gradients between backward and step."""

from collections.abc import Callable

import pytest
import torch
from compatibility.toys import classifier, loss_of, perceptron
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from torch import nn
from torch.nn.utils import clip_grad_norm_ as imported_by_name


@pytest.mark.setting(
    "gradient accumulation over four micro-batches",
    records=["loss", "gradient_norm", "backward_passes", "batch_items", "parameter_gradient_norm"],
)
def test_accumulation_reports_the_applied_gradient(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(5):
                optimizer.zero_grad()
                parts = []
                for _ in range(4):
                    loss = loss_of(model) / 4
                    loss.backward()
                    parts.append(loss.item())
                truth.note(step, loss=sum(parts), backward_passes=4, batch_items=32)
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)


@pytest.mark.setting("gradients that nobody clears", records=["loss", "gradient_norm", "gradients_reset"])
def test_gradients_that_pile_up_are_reported_as_applied(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            for step in range(6):
                loss = loss_of(model)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                if step:
                    truth.note(step, gradients_reset=0)
                optimizer.step()
        return model, optimizer

    trial.run(job)


def whole(model: nn.Module) -> torch.Tensor:
    return nn.utils.clip_grad_norm_(model.parameters(), 0.2)


def by_name(model: nn.Module) -> torch.Tensor:
    return imported_by_name(list(model.parameters()), max_norm=0.2)


def by_tensor_and_slowly(model: nn.Module) -> torch.Tensor:
    return nn.utils.clip_grad_norm_(list(model.parameters()), torch.tensor(0.2), foreach=False)


@pytest.mark.setting(
    "`clip_grad_norm_` over all parameters, also when it was imported by name before `attach`",
    records=["loss", "gradient_norm", "gradient_norm_unclipped"],
)
@pytest.mark.parametrize("clip", [whole, by_name, by_tensor_and_slowly])
def test_clipping_gives_the_norm_before_and_after(trial: Trial, clip: Callable[[nn.Module], torch.Tensor]) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(6):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm_unclipped=gradient_norm(model.parameters()))
                clip(model)
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)


def of_parts(model: nn.Sequential) -> None:
    nn.utils.clip_grad_norm_(model[0].parameters(), 0.05)
    nn.utils.clip_grad_norm_(model[4].parameters(), 0.05)


def of_the_largest_entry(model: nn.Sequential) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.05, norm_type=float("inf"))


def of_each_value(model: nn.Sequential) -> None:
    nn.utils.clip_grad_value_(model.parameters(), 0.01)


def by_hand(model: nn.Sequential) -> None:
    for parameter in model.parameters():
        parameter.grad.mul_(0.5)  # type: ignore[union-attr]


def then_noise(model: nn.Sequential) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 0.05)
    for parameter in model.parameters():
        parameter.grad.add_(torch.randn_like(parameter), alpha=0.1)  # type: ignore[union-attr]


@pytest.mark.setting(
    "clipping by parts, by value, by the infinity norm, by hand; noise added after clipping",
    records=["loss", "gradient_norm"],
)
@pytest.mark.parametrize("change", [of_parts, of_the_largest_entry, of_each_value, by_hand, then_noise])
def test_a_norm_is_of_what_is_applied_whatever_was_done(trial: Trial, change: Callable[[nn.Sequential], None]) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(5):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                change(model)
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)


@pytest.mark.setting(
    "`error_if_nonfinite` raises and the job mends its gradients",
    records=["loss", "gradient_norm", "gradient_norm_unclipped"],
)
def test_a_refused_clipping_is_no_clipping(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                optimizer.zero_grad()
                loss = loss_of(model)
                loss.backward()
                if step == 2:
                    model[0].weight.grad.fill_(float("inf"))  # type: ignore[union-attr]
                    with pytest.raises(RuntimeError, match="non-finite"):
                        nn.utils.clip_grad_norm_(model.parameters(), 0.2, error_if_nonfinite=True)
                    nn.utils.clip_grad_value_(model.parameters(), 0.1)
                else:
                    truth.note(step, gradient_norm_unclipped=gradient_norm(model.parameters()))
                    nn.utils.clip_grad_norm_(model.parameters(), 0.2)
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)
