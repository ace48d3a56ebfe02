"""The state of a training in memory, to go back to: weights, optimizer, schedule, scaler, buffers, generators."""

import copy
import gc
import random
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_Scaler: Any = getattr(getattr(torch.amp, "grad_scaler", None), "GradScaler", ())


class Checkpoint:
    """A copy in host memory, so that the device's peak is not raised; its size is that of what it copies.

    It holds no reference to the job's objects: they are given again to :meth:`restore`. Not in it: the position
    of the data loader, moving averages of the weights, and what else the job keeps.

    Args:
        optimizer: whose parameters and state are kept.
        buffers: running statistics and the like (:class:`Buffers`).
        companions: schedules and scalers (:func:`companions_of`).
        step: the step that was about to be applied.
    """

    def __init__(
        self, optimizer: Optimizer, buffers: Sequence[torch.Tensor], companions: Sequence[Any], step: int
    ) -> None:
        self.step = step
        self._parameters = [_copied(p) for p in parameters_of(optimizer)]
        self._buffers = [_copied(buffer) for buffer in buffers]
        self._state = [_kept(optimizer.state[p]) if p in optimizer.state else None for p in parameters_of(optimizer)]
        self._groups = [_kept({k: v for k, v in group.items() if k != "params"}) for group in optimizer.param_groups]
        self._companions = [copy.deepcopy(each.state_dict()) for each in companions]
        self._generators = [get() for get, _ in _generators()]

    @property
    def finite(self) -> bool:
        """Whether the weights that were copied are all finite: a checkpoint of NaN is none."""
        return all(bool(torch.isfinite(kept).all()) for kept in self._parameters if kept.is_floating_point())

    def fits(self, optimizer: Optimizer, buffers: Sequence[torch.Tensor], companions: Sequence[Any]) -> bool:
        """Whether all is still there, of the same shapes: a job may add layers or groups on its way."""
        now = [tuple(t.shape) for t in (*parameters_of(optimizer), *buffers)]
        then = [tuple(t.shape) for t in (*self._parameters, *self._buffers)]
        counts = (len(optimizer.param_groups), len(companions), len(_generators()))
        return now == then and counts == (len(self._groups), len(self._companions), len(self._generators))

    @torch.no_grad()
    def restore(self, optimizer: Optimizer, buffers: Sequence[torch.Tensor], companions: Sequence[Any]) -> None:
        """Go back, in place: every reference the job holds stays good."""
        parameters = parameters_of(optimizer)
        for tensor, kept in zip((*parameters, *buffers), (*self._parameters, *self._buffers), strict=True):
            tensor.copy_(kept)
        for parameter, state in zip(parameters, self._state, strict=True):
            if state is None:
                optimizer.state.pop(parameter, None)
            else:
                _put_back(optimizer.state[parameter], state)
        for group, values in zip(optimizer.param_groups, self._groups, strict=True):
            _put_back(group, values)
        for companion, state in zip(companions, self._companions, strict=True):
            companion.load_state_dict(copy.deepcopy(state))
        for (_, put_back), state in zip(_generators(), self._generators, strict=True):
            put_back(state)


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """The parameters of ``optimizer`` in the order of its groups."""
    return [p for group in optimizer.param_groups for p in group["params"]]


class Buffers:
    """The buffers of ``modules``, which take in every batch, a bad one too; by their places, as some are replaced."""

    def __init__(self, modules: Iterable[Module]) -> None:
        parts = {id(part): part for module in modules for part in module.modules()}
        self._places = [(part._buffers, name) for part in parts.values() for name in part._buffers]

    def now(self) -> list[torch.Tensor]:
        """The tensors that are there at this moment, each once."""
        found = [place.get(name) for place, name in self._places]
        return list({id(buffer): buffer for buffer in found if buffer is not None}.values())


def companions_of(optimizer: Optimizer) -> list[Any]:
    """The schedules of ``optimizer`` and the loss scalers of the process: one pass over living objects, 20 to 60 ms."""
    found = []
    for thing in gc.get_objects():
        kind = type(thing)
        is_schedule = issubclass(kind, LRScheduler) and getattr(thing, "optimizer", None) is optimizer
        if is_schedule or (issubclass(kind, _Scaler) and thing.is_enabled()):
            found.append(thing)
    return found


def size_of(optimizer: Optimizer, buffers: Sequence[torch.Tensor]) -> int:
    """Bytes that a checkpoint would take."""
    state = [v for each in optimizer.state.values() for v in each.values() if isinstance(v, torch.Tensor)]
    return sum(t.nbytes for t in (*parameters_of(optimizer), *state, *buffers))


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _kept(values: dict[str, Any]) -> dict[str, Any]:
    return {k: _copied(v) if isinstance(v, torch.Tensor) else copy.deepcopy(v) for k, v in values.items()}


def _put_back(current: dict[str, Any], kept: dict[str, Any]) -> None:
    for key in [key for key in current if key not in kept and key != "params"]:
        del current[key]
    for key, value in kept.items():
        if isinstance(value, torch.Tensor) and isinstance(current.get(key), torch.Tensor):
            current[key].copy_(value)
        else:
            current[key] = value.clone() if isinstance(value, torch.Tensor) else copy.deepcopy(value)


def _generators() -> list[tuple[Any, Any]]:
    """How to read each random generator of the process, and how to put it back."""
    found: list[tuple[Any, Any]] = [
        (torch.default_generator.get_state, torch.default_generator.set_state),
        (random.getstate, random.setstate),
    ]
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        found.append((numpy.get_state, numpy.set_state))
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        found += [(generator.get_state, generator.set_state) for generator in torch.cuda.default_generators]
    return found
