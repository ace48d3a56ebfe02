"""The state of a training in memory, to go back to: weights, optimizer, schedule, scaler, buffers, generators."""

import gc
import random
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

_Scaler: Any = getattr(getattr(torch.amp, "grad_scaler", None), "GradScaler", ())


class Checkpoint:
    """A copy in host memory, so that the device's peak is not raised; its size is that of what it copies.

    Not in it: the position of the data loader, moving averages of the weights, and what else the job keeps.

    Args:
        optimizer: whose parameters and state are kept.
        modules: whose buffers are kept.
        step: the step that was about to be applied.
    """

    def __init__(self, optimizer: Optimizer, modules: Iterable[Module], step: int) -> None:
        self.step = step
        self._parameters = [(p, _copied(p)) for group in optimizer.param_groups for p in group["params"]]
        self._buffers = [(buffer, _copied(buffer)) for buffer in buffers_of(modules)]
        self._optimizer = optimizer
        self._state = {
            p: {k: _copied(v) if isinstance(v, torch.Tensor) else v for k, v in state.items()}
            for p, state in optimizer.state.items()
        }
        self._groups = [{k: _kept(v) for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        self._companions = [(each, each.state_dict()) for each in companions(optimizer)]
        self._generators = _generators()

    @property
    def finite(self) -> bool:
        """Whether the weights that were copied are all finite: a checkpoint of NaN is none."""
        return all(bool(torch.isfinite(copy).all()) for _, copy in self._parameters if copy.is_floating_point())

    @torch.no_grad()
    def restore(self) -> None:
        """Go back, in place: every reference the job holds stays good."""
        for tensor, copy in (*self._parameters, *self._buffers):
            tensor.copy_(copy)
        self._restore_optimizer()
        for companion, state in self._companions:
            companion.load_state_dict(state)
        for put_back, state in self._generators:
            put_back(state)

    def _restore_optimizer(self) -> None:
        state = self._optimizer.state
        for parameter in [p for p in state if p not in self._state]:
            del state[parameter]
        for parameter, kept in self._state.items():
            current = state[parameter]
            for key, value in kept.items():
                if isinstance(value, torch.Tensor) and isinstance(current.get(key), torch.Tensor):
                    current[key].copy_(value)
                else:
                    current[key] = value.clone() if isinstance(value, torch.Tensor) else value
        for group, kept in zip(self._optimizer.param_groups, self._groups, strict=False):
            for key, value in kept.items():
                if isinstance(value, torch.Tensor) and isinstance(group.get(key), torch.Tensor):
                    group[key].copy_(value)
                else:
                    group[key] = value


def size_of(optimizer: Optimizer, modules: Iterable[Module]) -> int:
    """Bytes that a checkpoint would take."""
    state = [v for each in optimizer.state.values() for v in each.values() if isinstance(v, torch.Tensor)]
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return sum(t.nbytes for t in (*parameters, *state, *buffers_of(modules)))


def buffers_of(modules: Iterable[Module]) -> list[torch.Tensor]:
    """The buffers of ``modules``, each once: running statistics take in every batch, a bad one too."""
    return list({id(buffer): buffer for module in modules for buffer in module.buffers()}.values())


def companions(optimizer: Optimizer) -> list[Any]:
    """The schedules of ``optimizer`` and the loss scalers of the process: one pass over living objects, 20 to 60 ms."""
    found = []
    for thing in gc.get_objects():
        kind = type(thing)
        is_schedule = issubclass(kind, LRScheduler) and getattr(thing, "optimizer", None) is optimizer
        if is_schedule or (issubclass(kind, _Scaler) and thing.is_enabled()):
            found.append(thing)
    return found


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True)


def _kept(value: Any) -> Any:
    return _copied(value) if isinstance(value, torch.Tensor) else value


def _generators() -> list[tuple[Any, Any]]:
    """How to put back each random generator, and its state."""
    return list(_states())


def _states() -> Iterator[tuple[Any, Any]]:
    yield torch.default_generator.set_state, torch.default_generator.get_state()
    yield random.setstate, random.getstate()
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        yield numpy.set_state, numpy.get_state()
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        for generator in torch.cuda.default_generators:
            yield generator.set_state, generator.get_state()
