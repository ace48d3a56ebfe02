"""Whose gradient was not finite first, when sharing has made it so on all ranks."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn
from torchvitals.agent.case import Case
from torchvitals.agent.causes.corrupted_gradient import CorruptedGradient
from torchvitals.agent.history import History
from torchvitals.agent.step_evidence import culprit
from torchvitals.detectors.detector import Finding
from torchvitals.hooks.local_gradients import LocalGradient
from torchvitals.hooks.replay import Replay
from torchvitals.signals.records import Event


def backward(weight: torch.Tensor, factor: float) -> None:
    (weight * factor).sum().backward()


def followed() -> tuple[LocalGradient, nn.Parameter]:
    local, weight = LocalGradient(), nn.Parameter(torch.ones(3))
    local.follow(weight)
    return local, weight


def test_sharing_that_writes_over_the_gradient_does_not_hide_it() -> None:
    local, weight = followed()
    backward(weight, 2.0)
    weight.grad.fill_(math.nan)

    assert local.told(torch.tensor(math.nan), [weight]) == 6.0


def test_a_gradient_that_was_added_to_without_sharing_counts_as_well() -> None:
    local, weight = followed()
    for factor in (math.inf, 1.0):  # two micro-batches
        backward(weight, factor)

    assert local.told(torch.tensor(math.inf), [weight]) == math.inf


def test_nothing_is_told_of_a_step_that_is_well_or_had_no_backward() -> None:
    local, weight = followed()
    backward(weight, 2.0)

    assert local.told(torch.tensor(1.0), [weight]) is None
    assert local.told(torch.tensor(math.nan), [weight]) is None


def test_the_hook_goes_where_the_trip_wire_goes_and_leaves_nothing_behind() -> None:
    local, first = followed()
    second = nn.Parameter(torch.ones(3))
    local.follow(second)

    assert not first._post_accumulate_grad_hooks
    assert len(second._post_accumulate_grad_hooks) == 1
    local.remove()

    assert not second._post_accumulate_grad_hooks


def test_models_are_still_copied_and_pickled() -> None:
    model = nn.Linear(3, 3)
    local = LocalGradient()
    local.follow(model.bias)
    twin = copy.deepcopy(model)
    again = pickle.loads(pickle.dumps(model))
    for each in (twin, again):
        each(torch.ones(3)).sum().backward()

    assert local.take() is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_rank_whose_own_gradient_was_not_finite_is_named(bad: float) -> None:
    """The losses are finite, and no replay has an answer."""
    case = case_of({0: 3.5, 1: 0.1, 2: bad, 3: -2.0})

    assert culprit(case) == 2


@pytest.mark.parametrize("told", [{}, {0: math.nan}, {0: math.nan, 1: math.nan}, {0: 1.0, 1: 2.0}])
def test_no_rank_is_named_when_all_or_none_of_them_were_bad_or_one_alone_has_spoken(told: dict[int, float]) -> None:
    assert culprit(case_of(told)) is None


def test_a_fault_that_does_not_come_again_is_none_of_the_code() -> None:
    case = case_of({0: 3.5, 1: math.nan}, origin={"vanished": True})
    opinion = CorruptedGradient().weigh(case)

    assert opinion is not None
    assert opinion.rank == 1
    assert CorruptedGradient().weigh(case_of({0: 3.5, 1: math.nan}, origin={"vanished": False})) is None


def test_a_replay_says_whether_what_it_looked_for_was_gone() -> None:
    model = nn.Linear(3, 1)
    replay = Replay(model)
    batch = torch.ones(2, 3)
    replay.remember(model, (batch,), {})
    output = model(batch)
    replay.remember_output(output)
    output.sum().backward()
    model.bias.grad.fill_(math.nan)  # by a processor that fails, or by whoever writes to it
    origin = replay.gradient_origin(model.parameters())

    assert origin is not None
    assert (origin["operation"], origin["vanished"]) == ("", True)


def case_of(told: dict[int, float], origin: dict[str, bool] | None = None) -> Case:
    """A step 7 whose shared gradient was not finite on any of four ranks."""
    history = History()
    for rank in range(4):
        history.add("loss", 7, 0.5, rank)
    for rank, value in told.items():
        history.add("local_gradient", 7, value, rank)
    broken = Finding(kind="nonfinite", severity="critical", first_step=7, step=7, value=math.nan, threshold=1.0, rank=0)
    events = [(1, Event(0.0, 7, "origin", dict(origin)))] if origin else []
    return Case(findings=[broken], history=history, facts={}, events=events, world_size=4)
