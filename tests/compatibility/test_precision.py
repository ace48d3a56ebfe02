"""Mixed and low precision."""

import pytest
import torch
from compatibility.toys import batch, classifier, loss_of, perceptron
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from torch import nn
from torch.optim import Optimizer

OVERFLOWS = 2.0**32
"""An initial scale at which the first attempts overflow."""

KINDS = [
    pytest.param({}, id="default"),
    pytest.param({"fused": True}, id="fused"),
    pytest.param({"foreach": True}, id="foreach"),
]


def scaled_step(
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    truth: Truth,
    step: int,
    *,
    clip: float = 0.0,
) -> None:
    """One attempt as the manual of ``GradScaler`` writes it, and what it is about to apply."""
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = loss_of(model)
    scale = scaler.get_scale()
    scaler.scale(loss).backward()
    norm = gradient_norm(model.parameters()) / scale
    norms = [each / scale for each in gradient_norms(model.parameters())]
    if clip:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        after = gradient_norm(model.parameters())
    scaler.step(optimizer)
    scaler.update()
    skipped = scaler.get_scale() < scale
    truth.note(step, loss=loss, loss_scale=scale)
    if skipped:
        truth.note(step, skipped_steps=1)
    elif clip:
        truth.note(step, gradient_norm_unclipped=norm, gradient_norm=after)
    else:
        truth.note(step, gradient_norm=norm)
        truth.note_each(step, parameter_gradient_norm=norms)


@pytest.mark.setting(
    "fp16 autocast with `GradScaler`, skipped steps, default, `foreach` and `fused` optimizers",
    records=["loss", "loss_scale", "skipped_steps", "gradient_norm", "parameter_gradient_norm"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_scaling_is_undone_and_skips_are_steps(trial: Trial, kind: dict[str, bool]) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01, **kind)
        scaler = torch.amp.GradScaler("cpu", init_scale=OVERFLOWS)
        with watch(model, optimizer):
            for step in range(30):
                scaled_step(model, optimizer, scaler, truth, step)
        assert len(truth.scalars[0, "gradient_norm"]) < 30
        return model, optimizer, scaler.state_dict()

    trial.run(job)


@pytest.mark.setting(
    "fp16 autocast with `GradScaler`, `unscale_` and clipping",
    records=["loss", "loss_scale", "skipped_steps", "gradient_norm", "gradient_norm_unclipped"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_unscaled_and_clipped(trial: Trial, kind: dict[str, bool]) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **kind)
        scaler = torch.amp.GradScaler("cpu", init_scale=OVERFLOWS)
        with watch(model, optimizer):
            for step in range(30):
                scaled_step(model, optimizer, scaler, truth, step, clip=0.3)
        return model, optimizer, scaler.state_dict()

    trial.run(job)


@pytest.mark.setting(
    "fp16, clipping *before* `unscale_` (a mistake: it clips scaled gradients)",
    records=["loss", "gradient_norm"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_of_scaled_gradients_is_not_taken_for_the_applied_norm(trial: Trial, kind: dict[str, bool]) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, **kind)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with watch(model, optimizer):
            for step in range(5):
                optimizer.zero_grad()
                loss = loss_of(model)
                scaler.scale(loss).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()) / scaler.get_scale())
                scaler.step(optimizer)
                scaler.update()
        return model, optimizer

    trial.run(job)


@pytest.mark.setting("fp16, one `GradScaler` for two optimizers", records=["loss", "loss_scale", "gradient_norm"])
def test_one_scaler_serves_two_optimizers(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        models = [perceptron(), perceptron()]
        optimizers = [torch.optim.SGD(models[0].parameters(), 0.1), torch.optim.Adam(models[1].parameters(), 0.01)]
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        with watch(models, optimizers):
            for step in range(5):
                x, y = batch()
                for optimizer in optimizers:
                    optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.float16):
                    losses = [nn.functional.cross_entropy(model(x), y) for model in models]
                for loss in losses:
                    scaler.scale(loss).backward()
                truth.note(step, loss=losses[0] + losses[1])
                for index, model in enumerate(models):
                    norm = gradient_norm(model.parameters()) / scaler.get_scale()
                    truth.note(step, index, loss_scale=scaler.get_scale(), gradient_norm=norm)
                for optimizer in optimizers:
                    scaler.step(optimizer)
                scaler.update()
        return models, optimizers

    trial.run(job)


@pytest.mark.setting(
    "bf16 autocast", records=["loss", "gradient_norm", "parameter_gradient_norm", "batch_items", "input_absmax"]
)
def test_bf16_autocast(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            for step in range(6):
                x, y = batch()
                optimizer.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    loss = nn.functional.cross_entropy(model(x), y)
                loss.backward()
                truth.note(step, loss=loss, batch_items=8, input_absmax=x.abs().max())
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)


@pytest.mark.setting(
    "parameters in float64, bfloat16 or float16", records=["loss", "gradient_norm", "parameter_gradient_norm"]
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_parameters_of_other_widths(trial: Trial, dtype: torch.dtype) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = perceptron().to(dtype)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            for step in range(4):
                x, y = batch()
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(model(x.to(dtype)), y)
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)


@pytest.mark.setting(
    "bfloat16 gradients whose squares overflow half precision",
    records=["gradient_norm", "parameter_gradient_norm"],
    not_checked={"activations": "the model is a single module"},
)
def test_large_half_gradients_do_not_overflow_their_norm(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        layer = nn.Linear(300, 300, bias=False, dtype=torch.bfloat16)
        optimizer = torch.optim.SGD(layer.parameters(), lr=1e-6)
        with watch(layer, optimizer):
            for step in range(2):
                optimizer.zero_grad()
                (layer(torch.full((64, 300), 1e3, dtype=torch.bfloat16)).float().sum() * 1e3).backward()
                truth.note(step, gradient_norm=gradient_norm(layer.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(layer.parameters()))
                optimizer.step()
        return layer

    trial.run(job)
