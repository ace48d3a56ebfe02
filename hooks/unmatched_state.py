"""A state of which a model took nothing, though it holds all of it: the names have a prefix more, or one less.

``load_state_dict(state, strict=False)`` says so in what it returns, which hardly anybody reads.
"""

import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch.nn import Module
from torchvitals.hooks.source import line_of, user_frames

LEAST = 2
"""Parameters below which names and shapes may agree by chance."""
MOST = 0.9
"""Share of the parameters that must be in the state under another name: a version may have renamed a few besides."""


Written = tuple["weakref.ref[torch.Tensor]", int]
"""A weight, and how often it has been written to."""


class _Untouched(NamedTuple):
    details: dict[str, Any]
    before: list[Written]


class UnmatchedState:
    """The models that took nothing of what they were given and were not filled otherwise since.

    Who tries one spelling after the other ends with one that fits, and who loads the parts of a model by themselves
    writes to its weights: only a model that is used as it was drawn is told.

    Args:
        tell: is called with the name of the relation and its details.

    >>> layer, found = torch.nn.Linear(4, 4), []
    >>> unmatched = UnmatchedState(lambda relation, **details: found.append((relation, details["found"])))
    >>> wrapped = {f"module.{name}": value for name, value in layer.state_dict().items()}
    >>> unmatched.taken(layer, wrapped, layer.load_state_dict(wrapped, strict=False))
    >>> unmatched.used(layer.parameters())
    >>> found
    [('loaded_nothing', 'module.weight')]
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._waiting: weakref.WeakKeyDictionary[Module, _Untouched] = weakref.WeakKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def taken(self, module: Module, state: Mapping[str, Any], result: Any) -> None:
        """``module`` has taken what it could of ``state``; ``result`` names what was missing and what was too much."""
        self._waiting.pop(module, None)
        if not (result.unexpected_keys and result.missing_keys):
            return
        own = dict(module.named_parameters())
        if len(own) < LEAST or not set(result.missing_keys).issuperset(own):
            return
        there = _places(state)
        others = {name: found for name, weight in own.items() if (found := _other_name(name, weight, there))}
        if len(others) < MOST * len(own):
            return
        first = next(iter(others))
        details = {
            "parameter": first, "found": others[first], "parameters": len(own), "model": type(module).__name__,
            "line": next((str(line_of(frame)) for frame in user_frames(sys._getframe())), ""),
        }  # fmt: skip
        self._waiting[module] = _Untouched(details, [_written(weight) for weight in own.values()])

    def used(self, parameters: Iterable[torch.Tensor]) -> None:
        """The model of ``parameters`` answers, or is about to make its first step."""
        here = {id(each) for each in parameters}
        for module, (details, before) in list(self._waiting.items()):
            if any(id(ref()) in here for ref, _ in before):
                del self._waiting[module]
                if all((weight := ref()) is not None and _written(weight)[1] == count for ref, count in before):
                    self._tell("loaded_nothing", **details)


def _written(weight: torch.Tensor) -> Written:
    """Made under ``inference_mode`` it does not count."""
    return weakref.ref(weight), 0 if weight.is_inference() else weight._version


def _places(state: Mapping[str, Any]) -> dict[str, list[tuple[str, torch.Size]]]:
    """The tensors of ``state`` by the last part of their names."""
    found: dict[str, list[tuple[str, torch.Size]]] = {}
    for name, value in state.items():
        if isinstance(value, torch.Tensor):
            found.setdefault(name.rpartition(".")[2], []).append((name, value.shape))
    return found


def _other_name(name: str, weight: torch.Tensor, there: dict[str, list[tuple[str, torch.Size]]]) -> str:
    """Under which name with a prefix more, or one less, the state holds ``weight``; empty where it does not."""
    for other, shape in there.get(name.rpartition(".")[2], ()):
        if shape == weight.shape and (other.endswith(f".{name}") or name.endswith(f".{other}")):
            return other
    return ""
