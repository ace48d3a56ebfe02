"""Where a training runs, and what feeds it."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from compatibility.toys import batch, classifier, loss_of
from compatibility.trial import Trial, Watch, hooks_on
from compatibility.truth import Truth, gradient_norm, identical
from recorded import events
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvitals.hooks import attach
from torchvitals.signals.reader import RunReader
from torchvitals.signals.records import Hello, Step


class Rows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Random rows, drawn in the worker."""

    def __len__(self) -> int:
        return 32

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.randn(6)
        return x, x[:3].argmax()


@pytest.mark.setting(
    "data loader workers by `fork`, `forkserver` and `spawn`", records=["loss", "gradient_norm", "batch_items"]
)
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_loader_workers(trial: Trial, method: str) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        loader = DataLoader(Rows(), 8, num_workers=1, multiprocessing_context=method)
        with watch(model, optimizer):
            for step, (x, y) in enumerate(loader):
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, batch_items=8, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)

    writers = {(hello.rank, hello.pid) for hello in hellos(trial.directory)}
    assert len(writers) == 1, "a worker wrote something"


def hellos(directory: Path) -> list[Hello]:
    (run,) = (path for path in directory.iterdir() if path.is_dir())
    return [entry.hello for entry in RunReader(run).read()]


@pytest.mark.setting(
    "a training in a thread, beside another that is not watched", records=["loss", "gradient_norm", "batch_items"]
)
def test_training_in_a_thread(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = classifier(dropout=0.0)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        batches = [batch() for _ in range(8)]
        failed: list[BaseException] = []

        def train() -> None:
            try:
                for step, (x, y) in enumerate(batches):
                    loss = nn.functional.cross_entropy(model(x), y)
                    optimizer.zero_grad()
                    loss.backward()
                    truth.note(step, loss=loss, batch_items=8, gradient_norm=gradient_norm(model.parameters()))
                    optimizer.step()
            except BaseException as error:  # noqa: BLE001 (an assertion in a thread is nobody's failure otherwise)
                failed.append(error)

        with watch(model, optimizer):
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
        assert not failed
        return model

    trial.run(job)


def cell(directory: Path | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, list[float]]:
    """A notebook's cell: attach, train, and no detach."""
    monitor = attach(model, optimizer, directory=directory, overhead=1.0) if directory else None
    losses = []
    for _ in range(4):
        loss = loss_of(model)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    return monitor, losses


@pytest.mark.parametrize("fresh", [False, True], ids=["same-model", "new-model"])
def test_a_cell_that_is_run_again(tmp_path: Path, *, fresh: bool) -> None:
    """As in a notebook: the cell attaches once more, nobody has detached; each run has its own steps."""

    def session(directory: Path | None) -> tuple[object, list[list[float]]]:
        torch.manual_seed(0)
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        monitors, losses = [], []
        for _ in range(3):
            if fresh:
                model = classifier()
                optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            monitor, told = cell(directory, model, optimizer)
            monitors.append(monitor)
            losses.append(told)
        for monitor in monitors:
            if monitor is not None:
                monitor.detach()
        assert not list(hooks_on(model, optimizer))
        return [model, optimizer, torch.get_rng_state()], losses

    backward = torch.autograd.backward
    bare, watched = session(None), session(tmp_path)

    assert identical(bare, watched)
    assert torch.autograd.backward is backward
    runs = sorted(tmp_path.iterdir(), key=lambda run: run.stat().st_ctime_ns)
    newest = [[r.values["loss"] for r in steps_of(run)][-4:] for run in runs]
    assert sorted(newest) == [pytest.approx(each, rel=1e-6) for each in sorted(watched[1])]


def steps_of(run: Path) -> list[Step]:
    return [entry.record for entry in RunReader(run).read() if isinstance(entry.record, Step)]


@pytest.mark.setting(
    "a training inside a function whose model is gone before `detach`", records=["loss", "gradient_norm"]
)
def test_a_model_that_dies_before_its_monitor(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        def inside() -> tuple[Any, dict[str, torch.Tensor]]:
            model = classifier()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            context = watch(model, optimizer)
            context.__enter__()
            for step in range(4):
                loss = loss_of(model)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
            return context, model.state_dict()

        context, state = inside()
        context.__exit__(None, None, None)
        return state

    trial.run(job)


def train_once(model: nn.Module) -> float:
    return float(model(torch.ones(2, 6)).detach().sum())


@pytest.mark.setting("a watched model sent to another process", records=["loss"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_watched_model_in_another_process(trial: Trial, method: str) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        answers = []
        with watch(model, optimizer):
            loss = loss_of(model)
            loss.backward()
            truth.note(0, loss=loss)
            optimizer.step()
            with torch.multiprocessing.get_context(method).Pool(1) as pool:
                answers.append(pool.apply(train_once, (model,)))
        assert answers == [train_once(model)]
        return model, answers

    trial.run(job)

    assert len({(hello.rank, hello.pid) for hello in hellos(trial.directory)}) == 1
    assert not events(trial.directory, "serving")


@pytest.mark.setting("batches from a list, without a data loader", records=["loss", "batch_items", "gradient_norm"])
def test_batches_without_a_loader(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        data = TensorDataset(*batch(16))
        model = classifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with watch(model, optimizer):
            for step in range(4):
                x, y = data[step * 4 : step * 4 + 4]
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss, batch_items=4, gradient_norm=gradient_norm(model.parameters()))
                optimizer.step()
        return model

    trial.run(job)
