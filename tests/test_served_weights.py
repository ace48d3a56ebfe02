"""A service whose weights are replaced between two requests."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recorded import events
from torch import nn
from torchvitals.agent.offline import diagnose_directory
from torchvitals.hooks import attach
from torchvitals.hooks.served_weights import ServedWeights

REPLACED = 600
FAVOUR = torch.tensor([0.0, 4.0, 0.0])
"""Of one class: the same for all would change no answer."""


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 3)).eval()


def watched(
    model: nn.Module, change: Callable[[nn.Module], object], at: int, requests: int = 200
) -> list[dict[str, Any]]:
    """What is told of a model that ``change`` is done to before the request of index ``at``."""
    told: list[dict[str, Any]] = []
    weights = ServedWeights(told.append)
    for index in range(200):
        if index == at:
            change(model)
        weights.answered(model, index + 1)
    return told


def load_others(model: nn.Module) -> None:
    model.load_state_dict(net().state_dict())


def load_a_head(model: nn.Module) -> None:
    with torch.no_grad():
        model.get_parameter("4.bias").add_(FAVOUR)


def assign_others(model: nn.Module) -> None:
    model.load_state_dict(net().state_dict(), assign=True)


@pytest.mark.parametrize(
    ("change", "count", "late"), [(load_others, 6, 0), (load_a_head, 1, 0), (assign_others, 6, 64)]
)
def test_it_is_told_with_the_request_and_the_weights(
    change: Callable[[nn.Module], object], count: int, late: int
) -> None:
    (told,) = watched(net(), change, at=100)
    assert (told["count"], told["of"]) == (count, 6)
    assert 100 <= told["request"] <= 100 + late
    assert told["since"] <= 100
    assert "4.bias" in told["parameters"]


def test_a_weight_in_the_middle_is_found_within_some_requests() -> None:
    def change(model: nn.Module) -> None:
        model.get_parameter("2.weight").data.zero_()

    (told,) = watched(net(), change, at=100)
    assert told["parameters"] == ["2.weight"]
    assert 100 <= told["request"] < 164


def test_a_reload_of_the_same_weights_is_nothing() -> None:
    model = net()
    same = {name: value.clone() for name, value in model.state_dict().items()}
    assert watched(model, lambda served: served.load_state_dict(same), at=100) == []
    assert watched(model, lambda served: served.load_state_dict(same, assign=True), at=100) == []


def test_what_is_loaded_before_it_serves_is_nothing() -> None:
    assert watched(net(), load_others, at=5) == []


def test_a_model_that_learns_from_its_requests_is_told_a_few_times() -> None:
    told: list[dict[str, Any]] = []
    model, weights = net(), ServedWeights(told.append, most_told=3)
    for request in range(1, 100):
        with torch.no_grad():
            model.get_parameter("0.weight").add_(0.1)
        weights.answered(model, request)
    assert len(told) == 3


def test_a_model_that_goes_takes_its_weights_with_it_and_the_next_one_is_watched() -> None:
    told: list[dict[str, Any]] = []
    weights, model = ServedWeights(told.append), net()
    weights.answered(model, 20)
    weight = weakref.ref(model.get_parameter("2.weight"))
    del model
    gc.collect()
    assert weight() is None

    model = net()
    weights.answered(model, 21)
    load_others(model)
    weights.answered(model, 22)
    assert [details["request"] for details in told] == [21]


def test_a_model_without_weights_on_the_host_is_not_looked_at() -> None:
    assert watched(nn.ReLU(), lambda _: None, at=20) == []
    assert watched(nn.Linear(2, 2, device="meta"), lambda _: None, at=20) == []


def serve(directory: Path, change: Callable[[nn.Module], object]) -> list[tuple[str, str, str, int]]:
    torch.manual_seed(0)
    model = net()
    with attach(model, directory=directory, overhead=1.0), torch.inference_mode():
        for index in range(2 * REPLACED):
            if index == REPLACED:
                change(model)
            model(torch.randn(16, 8))
    (run,) = [path for path in directory.iterdir() if path.is_dir()]
    return [(i.kind, i.cause, i.where, i.first_step) for i in diagnose_directory(run).incidents]


def test_other_answers_after_a_reload_are_its_doing(tmp_path: Path) -> None:
    assert serve(tmp_path, load_a_head) == [("prediction_drift", "weights_overwritten", "4.bias", REPLACED)]


def test_a_reload_that_changes_no_answer_is_no_incident(tmp_path: Path) -> None:
    def change(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter("4.weight").mul_(1.0001)

    assert serve(tmp_path, change) == []
    assert len(events(tmp_path, "weights_replaced")) == 1


def test_other_answers_without_a_reload_are_a_shift(tmp_path: Path) -> None:
    def change(model: nn.Module) -> None:
        model.get_submodule("4").register_forward_hook(lambda _module, _inputs, output: output + FAVOUR)

    ((kind, cause, _, _),) = serve(tmp_path, change)
    assert (kind, cause) == ("prediction_drift", "label_shift")
