"""What a wrapper would share and does not: by intent, by mistake, or because it is not its business."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torchvitals.hooks import wrapped
from torchvitals.hooks.averaging_code import NONE, PLAIN, POSSIBLE
from torchvitals.hooks.pending import Pending
from torchvitals.hooks.wrapped import AVERAGERS, Wrapped


@pytest.fixture(autouse=True)
def code(monkeypatch):
    """What the job's code says of averaging: these tests' own code is nobody's job."""
    said = [POSSIBLE]
    monkeypatch.setattr(wrapped, "averaging_in_code", lambda: said[0])
    return said


class Sharing(nn.Module):
    """As DistributedDataParallel shows itself."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.require_backward_grad_sync = True
        self.process_group = "all"


class Counters:
    """Collectives of the wrapper's own group; ``None`` where there is no other."""

    def __init__(self, counts: list[int | None]) -> None:
        self._counts = counts

    def within(self, groups: list[str]) -> int | None:
        assert groups == ["all"]
        return self._counts.pop(0)


def told(
    *, shared: float, passes: int = 1, no_sync: bool = False, counts: tuple[int | None, ...] = (None, None)
) -> dict[str, torch.Tensor | float]:
    """The scalars of one step with so many backward passes and collectives."""
    net = nn.Linear(2, 2)
    return of(net, net, shared=shared, passes=passes, no_sync=no_sync, counts=counts)


def of(
    net: nn.Module,
    trained: nn.Module,
    *,
    shared: float,
    passes: int = 1,
    no_sync: bool = False,
    counts: tuple[int | None, ...] = (None, None),
) -> dict[str, torch.Tensor | float]:
    wrapper = Sharing(net)
    wrapper.require_backward_grad_sync = not no_sync
    observer = SimpleNamespace(naming=SimpleNamespace(sharing=[wrapper]), collectives=Counters([*counts, None, None]))
    wrapper_watch, pending = Wrapped(observer), Pending()  # type: ignore[arg-type]
    for _ in range(passes):
        pending.backward_passes += 1
        wrapper_watch.backward_begins(pending)
    scalars: dict[str, torch.Tensor | float] = {**pending.scalars, "collectives": shared}
    watch = SimpleNamespace(index=0, parameters=list(trained.parameters()))
    return scalars | wrapper_watch.told(watch, pending, scalars)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "under", "apart"),
    [
        ({"shared": 1.0}, 0, False),
        ({"shared": 0.0}, 0, False),  # past the wrapper
        ({"shared": 0.0, "no_sync": True}, 1, True),  # nothing is accumulated: weights are to be averaged
        ({"shared": 0.0, "no_sync": True, "passes": 4}, 4, False),  # accumulation that was left on
        ({"shared": 2.0, "counts": (7, 7)}, 0, True),  # with a part of the ranks only
        ({"shared": 2.0, "counts": (7, 9)}, 0, False),
    ],
)
def test_what_is_apart_by_intent(step, under, apart):
    found = told(**step)

    assert found["no_sync_passes"] == under
    assert ("trains_apart" in found) is apart


@pytest.mark.parametrize("said", [NONE, POSSIBLE, PLAIN])
def test_a_backward_under_no_sync_is_meant_only_where_somebody_could_average_weights(code, said):
    code[0] = said
    found = told(shared=0.0, no_sync=True)

    assert ("trains_apart" in found) is (said != NONE)
    assert found["averaging_in_code"] == said


def test_weights_that_the_wrapper_does_not_hold_are_not_its_business():
    found = of(nn.Linear(2, 2), nn.Linear(3, 3), shared=0.0, no_sync=True)

    assert found == {"collectives": 0.0}


def test_a_job_that_averages_by_a_library_says_nothing_of_its_wrapper(monkeypatch):
    monkeypatch.setitem(sys.modules, AVERAGERS[0], ModuleType("local_sgd"))

    assert told(shared=0.0, no_sync=True) == {"collectives": 0.0, "averaging_in_code": POSSIBLE}
