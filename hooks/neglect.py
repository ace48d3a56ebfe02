"""Parameters that somebody meant to train, that get gradients and are in no optimizer: thawed too late, or hidden."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.nn import Module
from torchvitals.hooks.discovery import plain_name

Named = tuple[str, "weakref.ref[torch.Tensor]"]

_OWN = frozenset(vars(Module()))
"""Where a module keeps its own book; everything else was put there by its author."""


class Neglect:
    """What no optimizer holds although its author gave it to the training.

    That a model gets gradients and is in no optimizer says nothing: whose style is copied, or a backbone that is fixed
    by leaving it out. Two acts say something. ``requires_grad`` that is set back to true in the middle of a training
    (the optimizer was built of what could learn before), and layers that a module keeps in a plain list or
    dictionary, where ``parameters()`` does not find them.
    """

    def __init__(self) -> None:
        self._frozen: list[Named] = []
        self._hidden: list[Named] = []
        self.why = ""

    def begin(self, trained: Iterable[Module]) -> None:
        """The first step is over: remember what is frozen, and what plain containers hide."""
        models = list(trained)
        named = [pair for module in models for pair in module.named_parameters()]
        self._frozen = [(plain_name(name), weakref.ref(p)) for name, p in named if not p.requires_grad]
        self._hidden = [(name, weakref.ref(p)) for module in models for name, p in hidden(module)]

    def look(self, held: Callable[[], set[int]]) -> list[str]:
        """Names of what is neglected in a step whose gradients have arrived.

        Args:
            held: asked for the ids of all parameters in optimizers, when there is something to look for in them.
        """
        thawed = self._frozen if self._frozen and any(_learns(self._frozen[i]) for i in (0, -1)) else []
        if not thawed and not self._hidden:
            return []
        known = held()
        self._hidden = [pair for pair in self._hidden if id(pair[1]()) not in known]
        if thawed:
            self._frozen = [pair for pair in self._frozen if id(pair[1]()) not in known]
        self.why = "hidden" if (found := _graded(self._hidden)) else "thawed"
        return found or _graded(self._frozen if thawed else [])


def hidden(module: Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Trainable parameters that ``module`` and its children keep in lists and dictionaries of no module.

    >>> model = torch.nn.Linear(2, 2)
    >>> model.blocks = [torch.nn.Linear(2, 2)]
    >>> [name for name, _ in hidden(model)]
    ['blocks.0.weight', 'blocks.0.bias']
    """
    registered = {id(parameter) for parameter in module.parameters()}
    for path, child in module.named_modules():
        for attribute, value in vars(child).items():
            for key, element in () if attribute in _OWN else _elements(value):
                for name, parameter in _parameters(element):
                    if parameter.requires_grad and id(parameter) not in registered:
                        parts = (plain_name(path), attribute, key, name)
                        yield ".".join(filter(None, parts)), parameter


def _elements(value: Any) -> Iterator[tuple[str, Any]]:
    if type(value) in (list, tuple):
        yield from ((str(position), element) for position, element in enumerate(value))
    elif type(value) is dict:
        yield from ((str(key), element) for key, element in value.items())


def _parameters(element: Any) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(element, Module):
        yield from element.named_parameters()
    elif isinstance(element, torch.nn.Parameter):
        yield "", element


def _learns(pair: Named) -> bool:
    parameter = pair[1]()
    return parameter is not None and parameter.requires_grad


def _graded(pairs: Iterable[Named]) -> list[str]:
    alive = ((name, parameter()) for name, parameter in pairs)
    return [name for name, p in alive if p is not None and p.requires_grad and p.grad is not None]
