"""Activation checkpointing: the forward runs twice, and must be counted once."""

from functools import partial

import pytest
import torch
from compatibility.toys import batch
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from recorded import records
from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)
from torchvitals.signals.records import Axis


class Blocks(nn.Module):
    """Two blocks with dropout, recomputed in backward, and a head."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 16)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.2)) for _ in range(2))
        self.head = nn.Linear(16, 3)
        self._reentrant = reentrant

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self._reentrant)
        return self.head(x)


@pytest.mark.setting(
    "activation checkpointing, reentrant and not, with dropout",
    records=[
        "loss",
        "gradient_norm",
        "parameter_gradient_norm",
        "batch_items",
        "backward_passes",
        "module_output_absmax",
    ],
)
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_a_forward_that_runs_twice_counts_once(trial: Trial, *, reentrant: bool) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = Blocks(reentrant=reentrant)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        leaves = [module for module in model.modules() if not list(module.children())]
        seen: list[float] = []
        handles = [
            leaf.register_forward_hook(lambda _m, _i, out: seen.append(float(out.detach().abs().max())))
            for leaf in leaves
        ]
        with watch(model, optimizer):
            for step in range(6):
                seen.clear()
                x, y = batch()
                loss = nn.functional.cross_entropy(model(x), y)
                truth.note_each(step, module_output_absmax=seen)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, batch_items=8, backward_passes=1)
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        for handle in handles:
            handle.remove()
        return model, optimizer

    trial.run(job)

    axes = [record for record in records(trial.directory) if isinstance(record, Axis) and record.kind == "module"]
    assert [axis.entries for axis in axes] == [
        ["stem", "blocks.0.0", "blocks.0.1", "blocks.0.2", "blocks.1.0", "blocks.1.1", "blocks.1.2", "head"]
    ]


@pytest.mark.setting(
    "`checkpoint_sequential` with a shared weight, accumulation and autocast",
    records=["loss", "gradient_norm", "backward_passes", "batch_items"],
)
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "non-reentrant"])
def test_segments_shared_weights_and_autocast(trial: Trial, *, reentrant: bool) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        shared = nn.Linear(6, 6)
        body = nn.Sequential(shared, nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), shared)

        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.body = body

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return checkpoint_sequential(self.body, 2, x, use_reentrant=reentrant)

        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                optimizer.zero_grad()
                total = 0.0
                for _ in range(2):
                    x = torch.randn(8, 6, requires_grad=True)
                    with torch.autocast("cpu", dtype=torch.bfloat16):
                        loss = model(x).float().pow(2).mean() / 2
                    loss.backward()
                    total += loss.item()
                truth.note(step, loss=total, backward_passes=2, batch_items=16)
                truth.note(step, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)


KEPT = {getattr(torch.ops.aten, name).default for name in ("addmm", "relu", "abs", "amax")}


def keep_some(_context: object, operator: object, *_args: object, **_kwargs: object) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in KEPT else CheckpointPolicy.PREFER_RECOMPUTE


class Selective(Blocks):
    """Keeps the results of operations: one of ours among them would be handed to the wrong layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        kept = partial(create_selective_checkpoint_contexts, keep_some)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False, context_fn=kept)
        return self.head(x)


@pytest.mark.setting(
    "selective checkpointing: no activation is looked at inside of it",
    records=["loss", "gradient_norm", "parameter_gradient_norm", "backward_passes"],
)
def test_selective_checkpointing(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = Selective(reentrant=False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            for step in range(4):
                x, y = batch()
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, backward_passes=1, gradient_norm=gradient_norm(model.parameters()))
                truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
                optimizer.step()
        return model, optimizer

    trial.run(job)

    axes = [record for record in records(trial.directory) if isinstance(record, Axis) and record.kind == "module"]
    assert axes[0].entries == ["stem", "head"]
