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

LASTING = 3
"""Steps that a parameter must have lived: one that is made anew for each batch is somebody's perturbation."""
MOST_ROOTS = 64
"""Models in use that are remembered."""
MOST_LATE = 1024
"""Parameters that are remembered; a model that is built anew of more is not patched up."""


class Neglect:
    """What no optimizer holds although its author gave it to the training.

    That a model gets gradients and is in no optimizer says nothing: whose style is copied, or a backbone that is fixed
    by leaving it out. Three acts say something. ``requires_grad`` that is set back to true in the middle of a training
    (the optimizer was built of what could learn before), layers that a module keeps in a plain list or
    dictionary, where ``parameters()`` does not find them, and parameters that a model was given after the last
    optimizer had been built, of which one holds other parameters of the same model.

    Args:
        step: the step of the job, asked when a model is given a parameter.
    """

    def __init__(self, step: Callable[[], int] = lambda: 0) -> None:
        self._step = step
        self._frozen: list[Named] = []
        self._hidden: list[Named] = []
        self._asked: dict[int, weakref.ref[Module]] = {}
        self._late: list[_Late] = []
        self._known = False
        """Whether an optimizer has been built."""
        self.why = ""
        self.since = 0
        """Step at which the first of the parameters in question came, where that is why."""

    def made(self) -> None:
        """An optimizer was built; of what there was before it somebody has decided what it holds."""
        self._known = True
        self._late.clear()

    def registered(self, _result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """``Module.register_parameter`` has been called: a module was given a parameter."""
        parameter = args[2] if len(args) > 2 else kwargs.get("param")
        if self._known and parameter is not None and len(self._late) < MOST_LATE:
            self._late.append(_Late(weakref.ref(parameter), self._step()))

    def asked(self, module: Module) -> None:
        """A root is in use without gradients."""
        if len(self._asked) < MOST_ROOTS:
            self._asked[id(module)] = weakref.ref(module)

    def in_use(self) -> set[int]:
        """Parameters of such roots: an encoder under ``no_grad`` belongs to a model all the same."""
        alive = (module for asked in self._asked.values() if (module := asked()) is not None)
        return {id(parameter) for module in alive for parameter in module.parameters()}

    def begin(self, trained: Iterable[Module]) -> None:
        """The first step is over: remember what is frozen, and what plain containers hide."""
        self._known = True
        models = list(trained)
        named = [pair for module in models for pair in module.named_parameters()]
        self._frozen = [(plain_name(name), weakref.ref(p)) for name, p in named if not p.requires_grad]
        self._hidden = [(name, weakref.ref(p)) for module in models for name, p in hidden(module)]

    def look(self, held: Callable[[], set[int]], trained: Callable[[], Iterable[Module]] = tuple) -> list[str]:
        """Names of what is neglected in a step whose gradients have arrived.

        Args:
            held: asked for the ids of all parameters in optimizers, when there is something to look for in them.
            trained: asked for the models that are trained, likewise.
        """
        if self._late and (found := self._look_at_late(held(), trained())):
            self.why = "late"
            return found
        thawed = self._frozen if self._frozen and any(_learns(self._frozen[i]) for i in (0, -1)) else []
        if not thawed and not self._hidden:
            return []
        known = held()
        self._hidden = [pair for pair in self._hidden if id(pair[1]()) not in known]
        if thawed:
            self._frozen = [pair for pair in self._frozen if id(pair[1]()) not in known]
        self.why = "hidden" if (found := _graded(self._hidden)) else "thawed"
        return found or _graded(self._frozen if thawed else [])

    def why_and_since(self) -> dict[str, Any]:
        """Of what was found last, for the facts of the job."""
        since = {"left_out_since": self.since} if self.why == "late" else {}
        return {"left_out_because": self.why, **since}

    def _look_at_late(self, held: set[int], trained: Iterable[Module]) -> list[str]:
        """Of what came after the optimizers: what is in use, and in none of them although its model is."""
        self._late = [late for late in self._late if (p := late.parameter()) is not None and id(p) not in held]
        for late in self._late:
            late.steps += 1
        old = {
            id(p): late.since for late in self._late if (p := late.parameter()) is not None and late.steps >= LASTING
        }
        waiting = {id(p) for late in self._late if (p := late.parameter()) is not None and id(p) in old and _hears(p)}
        if not waiting:
            return []
        self.since = min(old[key] for key in waiting)
        models = [list(module.named_parameters()) for module in trained]
        mixed = [named for named in models if any(id(p) in held for _, p in named)]
        return [plain_name(name) for named in mixed for name, p in named if id(p) in waiting]


class _Late:
    """A parameter that a module was given, the step of the job then, and the steps that were looked at since."""

    __slots__ = ("parameter", "since", "steps")

    def __init__(self, parameter: "weakref.ref[torch.Tensor]", since: int) -> None:
        self.parameter, self.since, self.steps = parameter, since, 0


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


def _hears(parameter: torch.Tensor) -> bool:
    return parameter.requires_grad and parameter.grad is not None


def _graded(pairs: Iterable[Named]) -> list[str]:
    alive = ((name, parameter()) for name, parameter in pairs)
    return [name for name, p in alive if p is not None and _hears(p)]
