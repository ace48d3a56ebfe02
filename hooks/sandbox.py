"""Running a module once more without the job being able to tell.

Inside :func:`sandbox` the module's parameters are aliases (same memory, no hooks of the job, no ``.grad``
of the job), its buffers and other tensors are clones, and every attribute and container is put back
afterwards; generators (torch, CUDA, ``random``, numpy) continue where they stood. Originals are swapped
out, not written to, so that no version counter moves and graphs that saved a buffer stay valid. Not
covered: globals, class attributes and files that a forward writes.
"""

import random
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import Module, Parameter

_CONTAINERS = (list, dict, set, deque, OrderedDict, defaultdict)
_DEEPEST = 3
"""Containers inside containers that are put back: ``self.log["train"]["loss"]``."""
_LARGEST = 10_000
"""A longer container is data, not state of the forward: it is put back, and not looked into."""


@contextmanager
def sandbox(module: Module, devices: list[int]) -> Iterator[dict[str, Parameter]]:
    """Yield the aliases of ``module``'s parameters by name; all is as it was when the block is left.

    Args:
        module: called inside the block by the caller; any exception passes through after putting back.
        devices: CUDA devices whose generators the block may advance.
    """
    aliases: dict[int, torch.Tensor] = {}
    names = dict(module.named_parameters())
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002 (the job's own global generator)
        stack.enter_context(torch.autograd.set_detect_anomaly(False))  # it would raise at the very thing we look for
        for child in module.modules():
            snapshot = _Snapshot(child)
            stack.callback(snapshot.put_back)
            snapshot.substitute(aliases)
        yield {name: alias for name, p in names.items() if isinstance(alias := aliases.get(id(p)), Parameter)}


class _Snapshot:
    """The attributes of one module and the contents of its containers."""

    def __init__(self, module: Module) -> None:
        self._attributes = module.__dict__
        self._saved = dict(module.__dict__)
        self._contents: list[tuple[Any, Any]] = []
        for value in self._saved.values():
            self._keep(value, _DEEPEST)

    def _keep(self, value: Any, depth: int) -> None:
        if type(value) not in _CONTAINERS or not depth or any(value is kept for kept, _ in self._contents):
            return
        self._contents.append((value, value.copy()))
        if len(value) <= _LARGEST and type(value) is not set:
            for child in value.values() if isinstance(value, dict) else value:
                self._keep(child, depth - 1)

    def substitute(self, aliases: dict[int, torch.Tensor]) -> None:
        """Put stand-ins in the place of tensors; one stand-in per tensor, so tied weights stay tied."""
        places = [self._attributes, *(place for place, _ in self._contents)]
        for place in places:
            if isinstance(place, dict):
                _drop_our_hooks(place)
                for key, value in list(place.items()):
                    if isinstance(value, torch.Tensor):
                        place[key] = _stand_in(value, aliases)
            elif isinstance(place, (list, deque)) and len(place) <= _LARGEST:
                for index, value in enumerate(place):
                    if isinstance(value, torch.Tensor):  # nn.LSTM holds its weights in a list too
                        place[index] = _stand_in(value, aliases)

    def put_back(self) -> None:
        """Undo everything, touching only what differs: another thread may be reading."""
        for container, copy in self._contents:
            _refill(container, copy)
        _refill(self._attributes, self._saved)


def _drop_our_hooks(place: dict[Any, Any]) -> None:
    """Our own hooks must not take the second forward for one of the job's."""
    for key, value in list(place.items()):
        if callable(value) and getattr(type(value), "__module__", "").startswith("torchvitals.hooks"):
            del place[key]


def _refill(container: Any, copy: Any) -> None:
    if isinstance(container, dict):
        for key in [key for key in container if key not in copy]:
            del container[key]
        for key, value in copy.items():
            if container.get(key) is not value:
                container[key] = value
    elif isinstance(container, list):
        container[:] = copy
    else:
        container.clear()
        container.update(copy) if isinstance(container, set) else container.extend(copy)


def _stand_in(tensor: torch.Tensor, aliases: dict[int, torch.Tensor]) -> torch.Tensor:
    if id(tensor) not in aliases:
        aliases[id(tensor)] = _alias(tensor)
    return aliases[id(tensor)]


def _alias(tensor: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, Parameter):
        return Parameter(tensor.detach(), tensor.requires_grad)
    with torch.no_grad():
        return tensor.detach().clone().requires_grad_(tensor.requires_grad)
