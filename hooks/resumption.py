"""A job that resumes from a checkpoint must take all of it: the optimizer's state was in the file, and stayed there.

Fine-tuning from such a file on purpose is another thing: it changes layers or settings. So the relation is broken
only where every weight came from the file and the new optimizer is set exactly as the saved one was.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

SETTINGS = ("momentum", "betas", "eps", "weight_decay", "alpha", "dampening", "nesterov", "amsgrad")
DEPTH, WIDTH = 3, 64
"""How deep, and how far along, a checkpoint is searched: states lie under a name, or in a list under one."""
Groups = list[dict[str, Any]]


class Resumption:
    """Remembers the settings, and no tensor, of optimizers whose state was read from a file.

    >>> resumption, weight = Resumption(), torch.nn.Parameter(torch.ones(2))
    >>> old, new = (torch.optim.SGD([weight], lr=0.1, momentum=0.9) for _ in range(2))
    >>> weight.sum().backward()
    >>> old.step()
    >>> resumption.read({"optimizer": old.state_dict(), "epoch": 3})
    >>> resumption.weights_loaded(missing=0)
    >>> resumption.left_behind(new), resumption.left_behind(old)
    (True, False)
    """

    def __init__(self) -> None:
        self._saved: list[Groups] = []
        self._weights_loaded = False

    def read(self, found: Any) -> None:
        """``torch.load`` has returned ``found``."""
        fresh = [[_settings(group) for group in state["param_groups"]] for state in _states(found, DEPTH)]
        if fresh:
            self._saved, self._weights_loaded = fresh, False

    def weights_loaded(self, missing: int) -> None:
        """A module has taken a state; so many of its entries were not in it."""
        self._weights_loaded |= bool(self._saved) and not missing

    def state_loaded(self) -> None:
        """An optimizer has taken a state: whoever does that knows of it."""
        self._saved.clear()

    def left_behind(self, optimizer: Optimizer) -> bool:
        """Whether ``optimizer``, about to make its first step, is one of the saved ones without what it had learnt."""
        if not self._weights_loaded or optimizer.state:
            return False
        groups = [_settings(group) for group in optimizer.param_groups]
        return any(_alike(groups, saved) for saved in self._saved)


def _states(found: Any, depth: int) -> Iterator[Mapping[str, Any]]:
    """States of optimizers in a checkpoint: those of optimizers that keep something and have stepped."""
    if isinstance(found, Mapping) and isinstance(found.get("param_groups"), list) and "state" in found:
        if found["state"] and all(isinstance(group, Mapping) for group in found["param_groups"]):
            yield found
    elif depth and isinstance(found, Mapping | list | tuple):
        for part in list(found.values() if isinstance(found, Mapping) else found)[:WIDTH]:
            yield from _states(part, depth - 1)


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    plain = {name: group[name] for name in SETTINGS if name in group and not isinstance(group[name], torch.Tensor)}
    rates = {float(group[name]) for name in ("lr", "initial_lr") if name in group}
    return {"count": len(group.get("params", ())), "rates": rates, **plain}


def _alike(groups: Groups, saved: Groups) -> bool:
    """The same settings, and the rate that the saved one had or began with."""
    return len(groups) == len(saved) and all(
        bool(one["rates"] & other["rates"])
        and {**one, "rates": 0, "betas": list(one.get("betas", ()))}
        == {**other, "rates": 0, "betas": list(other.get("betas", ()))}
        for one, other in zip(groups, saved, strict=True)
    )
