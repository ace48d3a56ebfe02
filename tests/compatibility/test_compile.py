"""Compiled and scripted models: what dynamo counts is the same with and without us."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from compatibility.toys import batch, loss_of
from compatibility.trial import Trial, Watch
from compatibility.truth import Truth, gradient_norm, gradient_norms
from recorded import series
from torch import nn
from torch._dynamo.utils import counters
from torch.optim import Optimizer

pytestmark = pytest.mark.filterwarnings("ignore")  # dynamo and TorchScript warn of themselves

ACTIVATIONS = {"activations": "the model is compiled: hooks would make torch.compile trace it again"}
PART = {"activations": "a part of the model is compiled: hooks would make torch.compile trace it again"}
IN_PLACE = {
    "forward": "the model is compiled in place: hooks on it run inside its code, or not at all",
    **ACTIVATIONS,
}
UNCALLED = {"forward": "its forward was not called, or only inside compiled or transformed code, where no hook runs"}


class Part(nn.Module):
    """A layer and its activation; dynamo does not compile a ``Sequential`` in place."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.linear(x))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Part(6, 16)
        self.second = Part(16, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.second(self.first(x)))


class Graphs:
    """A back end that counts the graphs it is given; a recompilation is one more."""

    def __init__(self) -> None:
        torch._dynamo.reset()
        counters.clear()
        self.graphs: list[int] = []

    def __call__(self, graph: Any, _inputs: Any) -> Any:
        self.graphs.append(len(graph.graph.nodes))
        return graph

    def counted(self, *names: str) -> object:
        """What dynamo has counted: graphs and their sizes, breaks and their reasons, frames."""
        return self.graphs, {name: dict(counters[name]) for name in names or ("stats", "graph_break", "frames")}


def steps(
    truth: Truth, model: nn.Module, call: Callable[[int], Any], optimizer: Optimizer, *, forwards: bool = True
) -> None:
    """Six steps; ``call(step)`` gives what is called in place of ``model``."""
    for step in range(6):
        loss = loss_of(call(step))
        optimizer.zero_grad()
        loss.backward()
        truth.note(step, loss=loss, backward_passes=1, gradient_norm=gradient_norm(model.parameters()))
        truth.note_each(step, parameter_gradient_norm=gradient_norms(model.parameters()))
        if forwards:
            truth.note(step, batch_items=8)
        optimizer.step()


WITH_FORWARD = ["loss", "gradient_norm", "parameter_gradient_norm", "backward_passes", "batch_items"]
WITHOUT_FORWARD = ["loss", "gradient_norm", "parameter_gradient_norm", "backward_passes"]


@pytest.mark.setting("`torch.compile` before `attach`, `fullgraph`", records=WITH_FORWARD, not_checked=ACTIVATIONS)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_before(trial: Trial, backend: str) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        compiled = torch.compile(model, backend=graphs if backend == "eager" else backend, fullgraph=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(compiled, optimizer):
            steps(truth, model, lambda _: compiled, optimizer)
        return model, graphs.counted()

    trial.run(job)


@pytest.mark.setting(
    "`torch.compile` before `attach`, which is given the module inside",
    records=WITHOUT_FORWARD,
    not_checked=ACTIVATIONS,
)
def test_compiled_before_and_not_given(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        compiled = torch.compile(model, backend=graphs, fullgraph=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            steps(truth, model, lambda _: compiled, optimizer, forwards=False)
        return model, graphs.counted()

    trial.run(job)

    assert set(series(trial.directory, "batch_items")) == {1, 2, 3, 4, 5}, "the wrapper is found behind the first step"


@pytest.mark.setting("`torch.compile` after `attach`, `fullgraph`", records=WITH_FORWARD, not_checked=ACTIVATIONS)
@pytest.mark.parametrize("late", [0, 2], ids=["at-once", "after-two-steps"])
def test_compiled_after(trial: Trial, late: int) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        compiled: list[Any] = []

        def call(step: int) -> Any:
            if step == late:
                compiled.append(torch.compile(model, backend=graphs, fullgraph=True))
            return compiled[0] if compiled else model

        with watch(model, optimizer):
            steps(truth, model, call, optimizer)
        return model, graphs.counted()

    trial.run(job)


@pytest.mark.setting("`module.compile()` in place", records=WITHOUT_FORWARD, not_checked=IN_PLACE)
@pytest.mark.parametrize("when", ["before", "after"])
def test_compiled_in_place(trial: Trial, when: str) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        if when == "before":
            model.compile(backend=graphs, fullgraph=True)
        with watch(model, optimizer):
            if when == "after":
                model.compile(backend=graphs, fullgraph=True)
            steps(truth, model, lambda _: model, optimizer, forwards=False)
        return model, graphs.counted()

    trial.run(job)


@pytest.mark.setting("parts of a model compiled, in place or wrapped", records=WITH_FORWARD, not_checked=PART)
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["in-place", "wrapped"])
def test_compiled_parts(trial: Trial, when: str, how: str) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        def compile_parts() -> None:
            if how == "wrapped":
                model.first = torch.compile(model.first, backend=graphs)
            else:
                model.first.compile(backend=graphs)
                model.second.compile(backend=graphs)

        if when == "before":
            compile_parts()
        with watch(model, optimizer):
            if when == "after":
                compile_parts()
            steps(truth, model, lambda _: model, optimizer)
        return [*model.parameters()], graphs.counted()

    trial.run(job)


@pytest.mark.setting("a compiled function around the model", records=WITHOUT_FORWARD, not_checked=UNCALLED)
def test_a_compiled_function(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        function = torch.compile(lambda x: model(x), backend=graphs, fullgraph=True)  # noqa: PLW0108
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            steps(truth, model, lambda _: function, optimizer, forwards=False)
        return model, graphs.counted()

    trial.run(job)


@pytest.mark.setting(
    "the whole training step compiled: forward, backward and optimizer",
    records=[],
    not_checked={"steps": "no step was seen, and something is compiled: a step inside compiled code runs no hook"},
)
def test_a_compiled_step(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

        @torch.compile(backend=graphs)
        def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            return loss

        with watch(model, optimizer):
            losses = [step(*batch()).detach() for _ in range(4)]
        return model, losses, graphs.counted("stats", "graph_break")

    trial.run(job)


@pytest.mark.setting("hooks of the job's own on a compiled model", records=WITH_FORWARD, not_checked=ACTIVATIONS)
def test_compiled_with_hooks_of_its_own(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        handle = model.head.register_forward_hook(lambda _module, _inputs, output: output * 2)
        compiled = torch.compile(model, backend=graphs, fullgraph=True)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(compiled, optimizer):
            steps(truth, model, lambda _: compiled, optimizer)
        handle.remove()
        return model, graphs.counted()

    trial.run(job)


@pytest.mark.setting(
    "dynamic shapes: a compiled model that is recompiled anyway", records=["loss"], not_checked=ACTIVATIONS
)
def test_recompilations_are_the_jobs_own(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        graphs = Graphs()
        model = Net()
        compiled = torch.compile(model, backend=graphs, dynamic=False)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(compiled, optimizer):
            for step, rows in enumerate((8, 8, 5, 8, 3, 5)):
                loss = loss_of(compiled, rows)
                optimizer.zero_grad()
                loss.backward()
                truth.note(step, loss=loss)
                optimizer.step()
        assert len(graphs.graphs) == 3
        return model, graphs.counted()

    trial.run(job)


@pytest.mark.setting(
    "TorchScript: `torch.jit.script`",
    records=WITHOUT_FORWARD,
    not_checked={"forward": "torch.jit.script gives a module that takes no hooks"},
)
def test_scripted(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = torch.jit.script(Net())
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            steps(truth, model, lambda _: model, optimizer, forwards=False)
        return model

    trial.run(job)


@pytest.mark.setting(
    "TorchScript: `torch.jit.trace`",
    records=WITHOUT_FORWARD,
    not_checked={"activations": "the model is a ScriptModule, which runs no Python hooks inside"},
)
def test_traced(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = torch.jit.trace(Net(), torch.randn(8, 6))
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            steps(truth, model, lambda _: model, optimizer, forwards=False)
        return model

    trial.run(job)


@pytest.mark.setting("a watched model is scripted or traced for export", records=WITH_FORWARD)
def test_a_watched_model_can_be_exported(trial: Trial) -> None:
    def job(watch: Watch, truth: Truth) -> object:
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        with watch(model, optimizer):
            steps(truth, model, lambda _: model, optimizer)
            x = torch.randn(8, 6)
            made = [torch.jit.trace(model, x), torch.jit.script(model), torch.export.export(model, (x,)).module()]
            assert all(torch.equal(each(x), model(x)) for each in made)
        return model

    trial.run(job)
