"""Real trainings side by side: equal ones to the last bit, and of others the first difference and its reason."""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import train as made_up_training
from made_up import writer
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchvitals.agent.cli import main
from torchvitals.agent.compare.comparison import Comparison, compare_runs
from torchvitals.agent.compare.report import as_json
from torchvitals.hooks import attach

STEPS = 40

Batches = Callable[[], Iterator[tuple[torch.Tensor, torch.Tensor]]]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCHVITALS_DIR", str(tmp_path / "runs"))
    return tmp_path / "runs"


class Net(nn.Module):
    """Two layers with dropout between them; ``noise`` is added to the second layer's output."""

    def __init__(self, noise: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(6, 16), nn.Dropout(0.2), nn.Linear(16, 3)
        self.noise = noise

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.second(self.drop(self.first(x).relu()))
        return out if self.noise is None else self.noise(out)


class Noisy(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Augments with the numbers that ``draw`` gives."""

    def __init__(self, draw: Callable[[], torch.Tensor]) -> None:
        self.draw = draw

    def __len__(self) -> int:
        return 80

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.full((6,), index / 80) + self.draw(), torch.tensor(index % 3)


def stored(seed: int | None = None, *, batch: int = 2) -> Batches:
    """Batches of a stored data set in the order of a generator with ``seed``, or of torch's own."""
    made = torch.Generator().manual_seed(7)
    data = TensorDataset(torch.randn(80, 6, generator=made), torch.randint(0, 3, (80,), generator=made))

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = None if seed is None else torch.Generator().manual_seed(seed)
        yield from DataLoader(data, batch_size=batch, shuffle=True, generator=order)

    return batches


def train(
    name: str,
    batches: Batches,
    *,
    lr: float = 0.01,
    steps: int = STEPS,
    net: Callable[[], nn.Module] = Net,
    before_training: Callable[[], object] = lambda: None,
) -> None:
    """Record one training under ``name``."""
    torch.manual_seed(0)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    before_training()
    with named(name), attach(model, optimizer):
        taken = 0
        while taken < steps:
            for x, y in batches():
                loss = nn.functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                taken += 1
                if taken == steps:
                    break


@contextmanager
def named(run: str) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHVITALS_RUN", run)
        patch.setenv("TORCHVITALS_NAME", run)
        yield


def compared(directory: Path) -> Comparison:
    return compare_runs(directory / "a", directory / "b")


def cause(comparison: Comparison) -> tuple[str, str, int]:
    assert comparison.incident is not None
    return comparison.incident.kind, comparison.incident.cause, comparison.incident.first_step


def test_equal_trainings_are_equal_to_the_last_bit(directory: Path) -> None:
    train("a", stored())
    train("b", stored())

    comparison = compared(directory)

    assert comparison.verdict == "equal", comparison.sentence
    (agreement,) = comparison.agreements
    assert (agreement.losses, agreement.equal_weights_at, agreement.final) == (STEPS, 38, True)
    assert agreement.digests == 1 + 32 + 4  # before the first, every one up to 31, then 32, 34, 36, 38
    assert f"up to step {STEPS - 1}" in comparison.sentence


def test_equal_although_the_other_run_is_shorter(directory: Path) -> None:
    train("a", stored())
    train("b", stored(), steps=15)

    comparison = compared(directory)

    assert comparison.verdict == "equal"
    assert "up to step 14" in comparison.sentence
    assert any("steps from 15 on" in item.what for item in comparison.not_compared)


def test_a_changed_learning_rate_is_the_cause(directory: Path) -> None:
    train("a", stored())
    train("b", stored(), lr=0.02)

    comparison = compared(directory)

    assert cause(comparison) == ("changed", "different_setting", 0)
    assert [fact.what for fact in comparison.facts if fact.group == "setting"] == ["optimizers.groups.lr"]
    assert comparison.agreements[0].equal_weights_at == -1


def test_another_batch_size_is_the_cause_although_other_batches_came(directory: Path) -> None:
    train("a", stored())
    train("b", stored(batch=4), steps=20)

    assert cause(compared(directory)) == ("changed", "different_setting", 0)


def test_another_order_is_seen_in_the_batches(directory: Path) -> None:
    train("a", stored(seed=1))
    train("b", stored(seed=2))

    comparison = compared(directory)

    assert cause(comparison) == ("nondeterminism", "different_data", 0)
    assert comparison.agreements[0].first is not None
    assert comparison.agreements[0].first.stage == "batch"


def test_another_number_of_workers_augments_with_other_numbers(directory: Path) -> None:
    """Each worker has a generator of its own, seeded from torch's."""
    for name, workers in (("a", 0), ("b", 2)):
        made = DataLoader(Noisy(lambda: torch.randn(6)), batch_size=4, num_workers=workers)
        train(name, lambda made=made: iter(made), steps=12)

    comparison = compared(directory)

    assert comparison.facts[0].what == "loader.workers"
    assert cause(comparison)[1] == "different_setting"


def test_augmentation_by_an_unseeded_generator_is_named(directory: Path) -> None:
    def draw() -> torch.Tensor:
        return torch.from_numpy(np.random.normal(size=6)).float()  # noqa: NPY002 (the global one, as datasets do)

    for name, seed in (("a", 11), ("b", 12)):  # what an unseeded process gets from the system, made repeatable
        np.random.seed(seed)  # noqa: NPY002
        train(name, lambda: iter(DataLoader(Noisy(draw), batch_size=4)))

    comparison = compared(directory)

    assert cause(comparison) == ("nondeterminism", "unseeded_generator", 0)
    assert comparison.incident is not None
    assert "numpy" in comparison.incident.causes[0].evidence[0]


def test_a_generator_that_nobody_draws_from_is_no_reason(directory: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        random.seed(seed)
        train(name, stored())

    assert compared(directory).verdict == "equal"


def test_another_dropout_seed_is_named(directory: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        train(name, stored(seed=3), before_training=lambda seed=seed: torch.manual_seed(seed))

    comparison = compared(directory)

    assert cause(comparison) == ("changed", "different_seed", 0)
    assert comparison.agreements[0].equal_weights_at == -1


def test_other_initial_weights_from_one_seed(directory: Path) -> None:
    def loaded(scale: float) -> nn.Module:
        model = Net()
        with torch.no_grad():
            model.second.weight.mul_(scale)
        return model

    train("a", stored(seed=3), net=lambda: loaded(1.0))
    train("b", stored(seed=3), net=lambda: loaded(1.5))

    comparison = compared(directory)

    assert cause(comparison) == ("nondeterminism", "different_start", -1)
    assert comparison.incident is not None
    assert comparison.incident.where == "second.weight"


def test_one_bit_in_one_layer_is_found_and_placed(directory: Path) -> None:
    """A device that adds in no fixed order: the smallest difference there is, in one layer's output, at step 17."""
    calls = iter(range(1000))

    def once(out: torch.Tensor) -> torch.Tensor:
        step = next(calls)
        return out * (1 + 2**-20) if step == STEPS + 17 else out

    train("a", stored(seed=3), net=lambda: Net(once))
    train("b", stored(seed=3), net=lambda: Net(once))

    comparison = compared(directory)

    kind, word, step = cause(comparison)
    assert (kind, step) == ("nondeterminism", 17)
    assert word in ("nondeterministic_operation", "unknown")
    assert comparison.agreements[0].equal_weights_at == 16
    assert "equal up to step 16" in comparison.sentence


def test_a_difference_that_the_weights_outlive_is_a_note(directory: Path) -> None:
    for name, printed in (("a", 1.0), ("b", 1.0 + 1e-7)):
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        with named(name), attach(model, optimizer) as monitor:
            for x, y in stored()():
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                monitor.log(loss=printed)
                optimizer.step()

    comparison = compared(directory)

    assert comparison.verdict == "equal" or cause(comparison)[2] > 36
    assert any("`loss`" in item.what for item in comparison.not_compared)


def test_other_models_are_told_apart_and_their_figures_compared(directory: Path) -> None:
    train("a", stored())
    train("b", stored(), net=lambda: nn.Sequential(nn.Linear(6, 3)))

    comparison = compared(directory)

    assert comparison.verdict == "incomparable"
    assert comparison.agreements == []
    assert "other parameters" in comparison.sentence
    assert {figure.what for figure in comparison.figures} >= {"steps", "loss, last step", "step, median"}


# -- the command ------------------------------------------------------------------------------------------------------


def test_json_names_the_first_difference(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("a", stored())
    train("b", stored(), lr=0.02)

    assert main(["compare", "a", "b", "--json", "--fail-on-divergence"]) == 1

    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "diverged"
    divergence = told["divergence"]
    assert (divergence["step"], divergence["stage"], divergence["signal"]) == (0, "setting", "learning_rate")
    assert divergence["values"] == [0.01, 0.02]
    assert divergence["causes"][0]["cause"] == divergence["cause"] == "different_setting"
    assert divergence["layers"] == ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert {"group": "setting", "what": "optimizers.groups.lr", "a": 0.01, "b": 0.02} in told["differences"]
    assert {"first", "equal"} & set(told) == set()


def test_every_form_says_that_runs_are_equal(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("a", stored(), steps=8)
    train("b", stored(), steps=8)
    page = directory.parent / "page.html"

    assert main(["compare", "a", "b", "--fail-on-divergence"]) == 0
    assert main(["compare", "a", "b", "--markdown"]) == 0
    assert capsys.readouterr().out.count("Bitwise equal up to step 7") == 2
    assert main(["compare", "a", "b", "--html", str(page)]) == 0

    class Outside(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [f"{tag} {key}" for key, _ in attrs if key in ("src", "href")]

    text = page.read_text()
    reader = Outside()
    reader.feed(text)
    assert reader.found == []
    assert text.count("<svg") >= 3
    assert "Bitwise equal up to step 7" in text


def test_a_loss_that_is_not_finite_is_a_value(directory: Path) -> None:
    for name, last in (("a", float("nan")), ("b", float("nan"))):
        made_up_training(writer(directory, run=name), [1.0, last])

    comparison = compared(directory)

    assert comparison.verdict == "equal"
    told = json.loads(as_json(comparison))
    assert {"what": "loss, last step", "unit": "", "a": "NaN", "b": "NaN"} in told["figures"]


def test_errors_say_what_to_type(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train("a", stored(), steps=3)
    service = nn.Linear(2, 1).eval()
    with named("served"), attach(service), torch.no_grad():
        service(torch.ones(3, 2))

    for words, told in (
        (["a", "nowhere"], "no run nowhere"),
        (["a", "a"], "the same run"),
        (["a", "served"], "no process took an optimizer step"),
    ):
        assert main(["compare", *words]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert "torchvitals " in error.removeprefix("torchvitals: ")
        assert error.count("\n") == 1
