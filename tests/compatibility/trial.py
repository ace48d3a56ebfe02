"""A training that runs bare, watched, and hardly watched: the same bits, and signals that equal the truth."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

import pytest
import torch
from compatibility.truth import Truth, identical
from recorded import events, profiles, series
from torch import nn
from torch.optim import Optimizer
from torchvitals.hooks import attach, counted
from torchvitals.hooks.monitor import Monitor

EXACT = 1e-5
"""Largest relative error of a recorded signal."""
TINY = 1e-12
"""Absolute error of one that is 0."""


class Watch(Protocol):
    """What a job is handed in place of ``attach``: it does nothing where the job runs bare."""

    def __call__(self, model: Any, optimizer: Any = None, /) -> contextlib.AbstractContextManager[Monitor | None]: ...


Job = Callable[[Watch, Truth], Any]
"""Trains inside ``with watch(model, optimizer)``, notes the truth, returns all that must be bit-equal."""


class Outcome(NamedTuple):
    """What one run of a job left."""

    result: Any
    truth: Truth
    generator: torch.Tensor


class Trial:
    """Runs jobs and holds what was recorded against the claims of the test's ``setting`` mark.

    Args:
        directory: where the watched run is recorded.
        records: the signals that the test must prove.
        not_checked: what is said not to be seen, with the reason that is given.
    """

    def __init__(self, directory: Path, records: Sequence[str], not_checked: Mapping[str, str]) -> None:
        self.directory = directory
        self.proven = False
        self._records = set(records)
        self._not_checked = dict(not_checked)

    def run(self, job: Job, *, exact: float = EXACT) -> None:
        """Run ``job`` bare, watched and hardly watched, and compare everything."""
        self.hold_against(self.twice(job), exact)

    def twice(self, job: Job, *, hardly: bool = True) -> Truth:
        """Run ``job`` bare, watched and, unless told otherwise, hardly watched: the same bits. What it knows of itself.

        A job that makes trouble in :attr:`directory` makes it for one run.
        """
        bare, watched = self._once(job, bare_watch), self._once(job, self.watch)
        assert identical(bare.result, watched.result), "the watched job computed something else"
        assert identical(bare.truth.scalars, watched.truth.scalars)
        assert torch.equal(bare.generator, watched.generator), "random numbers were drawn"
        if hardly:
            self._hardly_watched(job, bare)
        return watched.truth

    def hold_against(self, truth: Truth, exact: float = EXACT) -> None:
        """Compare what was recorded with ``truth``, and what was proven with what is claimed."""
        self.compare(truth, exact)
        self.settle(truth.signals, self.said())

    def settle(self, signals: set[str], said: Mapping[str, str]) -> None:
        """Compare what was proven, and what was said not to be seen, with what is claimed."""
        assert said == self._not_checked
        assert signals == self._records, "the test's mark claims something else than the test proves"
        self.proven = True

    def said(self) -> dict[str, str]:
        """What the run said not to be seen, and why."""
        return {event.details["what"]: event.details["why"] for event in events(self.directory, "not_checked")}

    def compare(self, truth: Truth, exact: float = EXACT) -> None:
        """Compare what was recorded with ``truth``."""
        for (optimizer, signal), expected in truth.scalars.items():
            found = series(self.directory, signal, optimizer)
            assert found == pytest.approx(expected, rel=exact, abs=TINY)
        for (optimizer, signal), entries in truth.profiles.items():
            self._compare_profile(signal, profiles(self.directory, signal, optimizer), entries, exact)
        assert not [event.details for event in events(self.directory, "fuse")]

    @contextlib.contextmanager
    def watch(self, model: Any, optimizer: Any = None) -> Iterator[Monitor]:
        """Attach, with a budget that lets every step be looked at on the slowest machine; nothing is left behind."""
        before = list(hooks_on(model, optimizer))
        with attach(model, optimizer, directory=self.directory, overhead=1.0) as monitor:
            budget = monitor.recorder.budget
            budget.tokens = budget._most = 1e9
            yield monitor
        assert list(hooks_on(model, optimizer)) == before

    @contextlib.contextmanager
    def watch_hardly(self, model: Any, optimizer: Any = None) -> Iterator[Monitor]:
        """Attach where steps cannot pay: one step is watched, one is a light one if it can be, and one is counted."""
        before = list(hooks_on(model, optimizer))
        with attach(model, optimizer, directory=self.directory) as monitor, contextlib.ExitStack() as stack:
            budget, digests = monitor.recorder.budget, monitor.observer.digests
            budget.tokens, budget.overhead = -1.0, 0.0
            stack.enter_context(patch.object(budget, "steps_to_count", lambda: 2))
            stack.enter_context(patch.object(digests, "steps_until_due", lambda _step, most, **_: most))  # is due often
            stack.enter_context(patch.object(counted, "LIGHT", 1))
            yield monitor
        assert list(hooks_on(model, optimizer)) == before

    def _hardly_watched(self, job: Job, bare: Outcome) -> None:
        """The same bits again; a loss at every step, whatever else there is equals the truth."""
        other = Trial(self.directory.with_name(f"{self.directory.name}-hardly-watched"), (), {})
        outcome = self._once(job, other.watch_hardly)
        assert identical(bare.result, outcome.result), "hardly watched, the job computed something else"
        assert torch.equal(bare.generator, outcome.generator), "hardly watched, it drew other random numbers"
        for (optimizer, signal), expected in outcome.truth.scalars.items():
            found = series(other.directory, signal, optimizer)
            wanted = expected if signal == "loss" else {step: expected[step] for step in expected if step in found}
            known = {step: found[step] for step in found if step in expected}
            assert known == pytest.approx(wanted, rel=EXACT, abs=TINY, nan_ok=True), signal
        assert not [event.details for event in events(other.directory, "fuse")]

    def _once(self, job: Job, watch: Watch) -> Outcome:
        torch.manual_seed(0)
        truth = Truth()
        return Outcome(job(watch, truth), truth, torch.get_rng_state())

    @staticmethod
    def _compare_profile(
        signal: str, found: dict[int, list[float]], truth: dict[int, list[float]], exact: float
    ) -> None:
        """Profiles come on sampled steps: the first one always, and each must be right."""
        assert min(truth) in found, signal
        for step, entries in found.items():
            assert entries == pytest.approx(truth[step], rel=exact, abs=TINY)


def bare_watch(_model: Any, _optimizer: Any = None) -> contextlib.AbstractContextManager[None]:
    """In place of ``Trial.watch`` where the job runs alone."""
    return contextlib.nullcontext()


def hooks_on(model: Any, optimizer: Any) -> Iterator[object]:
    """Every hook on the modules and the optimizers."""
    for module in (part for root in _each(model) for part in root.modules()):
        yield from (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        yield from (hook for p in module._parameters.values() if p is not None for hook in (p._backward_hooks or ()))
    for each in _each(optimizer):
        yield from (*each._optimizer_step_pre_hooks.values(), *each._optimizer_step_post_hooks.values())


def _each(given: Any) -> Iterable[Any]:
    if isinstance(given, nn.Module | Optimizer):
        return [given]
    return list(given.values()) if isinstance(given, Mapping) else given or []
