"""Experts of a mixture that no token has ever reached: their router sends everything to the others."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch.nn import Module, ModuleDict, ModuleList
from torch.optim import Optimizer
from torchvitals.hooks.discovery import plain_name

ROUTER = re.compile(r"gat(e|ing)|rout|switch|select|dispatch", re.IGNORECASE)
"""What a router is called; heads of several tasks lie beside weights of all shapes, and none of them is called so."""


class Unused(NamedTuple):
    """How many of how many experts of the mixture at ``path`` were never updated, and the first of them."""

    path: str
    first: str
    unused: int
    experts: int


def unused_experts(models: Iterable[Module], optimizers: Sequence[Optimizer]) -> Unused | None:
    """The first mixture of which an optimizer with a memory has updated some experts, and others not once.

    The optimizer begins to remember a parameter with its first gradient. A layer that is left out by chance, a head
    of a task that this run does not have, are no experts: those have a router beside them that is trained as well.
    """
    known = {id(p): p in optimizer.state for optimizer in optimizers for p in _held(optimizer)}
    for model in models:
        for path, experts, routers in mixtures(model):
            if not any(known.get(id(router), False) for router in routers):
                continue
            met = {name: [known[id(p)] for p in expert.parameters() if id(p) in known] for name, expert in experts}
            never = [name for name, updated in met.items() if updated and not any(updated)]
            if never and any(updated and all(updated) for updated in met.values()):
                return Unused(plain_name(path), plain_name(never[0]), len(never), len(met))
    return None


def mixtures(model: Module) -> Iterator[tuple[str, list[tuple[str, Module]], list[torch.Tensor]]]:
    """Paths of mixtures in ``model``, with their experts and what may be the weight of their router.

    >>> moe = torch.nn.ModuleDict({"gate": torch.nn.Linear(8, 3, bias=False)})
    >>> moe["experts"] = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(3))
    >>> [(path, len(experts), len(routers)) for path, experts, routers in mixtures(moe)]
    [('experts', 3, 1)]
    """
    for path, parent in model.named_modules():
        for name, group in parent.named_children():
            if not isinstance(group, ModuleList | ModuleDict) or len(group) < 2:
                continue
            experts = list(group.named_children())
            if len({_form(expert) for _, expert in experts}) > 1 or next(experts[0][1].parameters(), None) is None:
                continue
            beside = [(key, p) for key, p in parent.named_parameters() if not key.startswith(f"{name}.")]
            routers = [p for key, p in beside if p.dim() == 2 and len(experts) in p.shape and ROUTER.search(key)]
            if routers:
                where = f"{path}.{name}" if path else name
                yield where, [(f"{where}.{key}", expert) for key, expert in experts], routers


def _form(module: Module) -> tuple[str, tuple[torch.Size, ...]]:
    return type(module).__name__, tuple(p.shape for p in module.parameters())


def _held(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
