"""What a model has loaded must be there when it is first used, and must not be zero where random numbers were.

Weights that are drawn anew behind ``load_state_dict``, by an initialisation that runs too late or for a second time,
throw the checkpoint away, and the training begins from nothing without a word. A weight that a damaged file has lost
is read as zeros (transformers-29903: a state dict that was put together wrongly).
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.nn import Module, Parameter

LEAST = 8
"""Values of a weight below which it is not looked at."""
SAMPLE = 64
"""Values kept of each weight: the correlation of as many random numbers is below 0.5 with four times its deviation."""
ALIKE = 0.5
"""Correlation above which a weight is what was loaded, scaled, perturbed or averaged; a new draw has none."""
MOST = 0.9
"""Share of the loaded weights that must be gone: who draws a head, or the upper layers, anew means to."""
FEW = 0.5
"""Share of the loaded weights that may be zero by damage; who loads zeros everywhere counts from there."""
Kept = tuple["weakref.ref[torch.Tensor]", torch.Tensor]


class LoadedWeights:
    """The states that models have taken and that nobody has used yet.

    Args:
        tell: is called with the name of the relation and its details.

    >>> layer, found = torch.nn.Linear(16, 16), []
    >>> loaded = LoadedWeights(lambda relation, **details: found.append((relation, details["parameter"])))
    >>> loaded.begins(layer)
    >>> loaded.taken(layer, layer.state_dict())
    >>> layer.reset_parameters()
    >>> loaded.used(layer.parameters())
    >>> found
    [('loaded_then_overwritten', 'weight')]
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._before: dict[int, torch.Tensor] = {}
        self._loads: weakref.WeakKeyDictionary[Module, dict[str, Kept]] = weakref.WeakKeyDictionary()

    def __bool__(self) -> bool:
        return bool(self._loads)

    def begins(self, module: Module) -> None:
        """``module`` is about to take a state."""
        self._before = {id(each): _sample(each) for each in module.parameters() if _followed(each)}

    def taken(self, module: Module, state: Mapping[str, Any]) -> None:
        """It has taken what was in ``state``."""
        before, self._before = self._before, {}
        taken = {name: each for name, each in module.named_parameters() if name in state and id(each) in before}
        if not taken:
            return
        kept = {name: _sample(each) for name, each in taken.items()}
        zero = [name for name, each in taken.items() if _lost(name, each, kept[name], before[id(each)])]
        if 0 < len(zero) <= FEW * len(taken):
            self._tell("loaded_zeros", parameter=zero[0], parameters=len(zero), model=type(module).__name__)
        large = {name: sample for name, sample in kept.items() if len(sample) == SAMPLE}
        self._loads[module] = {name: (weakref.ref(taken[name]), sample) for name, sample in large.items()}

    def used(self, parameters: Iterable[torch.Tensor]) -> None:
        """The model of ``parameters`` answers, or is about to make its first step."""
        here = {id(each) for each in parameters}
        for module, kept in list(self._loads.items()):
            living = {name: (found, sample) for name, (ref, sample) in kept.items() if (found := ref()) is not None}
            if any(id(found) in here for found, _ in living.values()):
                del self._loads[module]
                gone = [name for name, (found, sample) in living.items() if _unlike(found, sample)]
                if gone and len(gone) >= MOST * len(kept):
                    name = type(module).__name__
                    self._tell("loaded_then_overwritten", parameter=gone[0], parameters=len(gone), model=name)


def _followed(parameter: Parameter) -> bool:
    plain = type(parameter) is Parameter and parameter.layout is torch.strided and not parameter.is_meta
    return plain and parameter.dim() > 1 and parameter.is_floating_point() and parameter.numel() >= LEAST


def _sample(weight: torch.Tensor) -> torch.Tensor:
    flat = weight.detach().reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLE)][:SAMPLE].to(torch.float32, copy=True)


def _lost(name: str, weight: torch.Tensor, loaded: torch.Tensor, before: torch.Tensor) -> bool:
    """Whether all of ``weight`` is zero, and was not when it was fresh; the mask token of another version may be."""
    return name.endswith("weight") and not loaded.any() and bool(before.any()) and not weight.detach().any()


def _unlike(weight: torch.Tensor, loaded: torch.Tensor) -> bool:
    """Whether ``weight`` has nothing to do any more with the sample that was ``loaded``."""
    now = _sample(weight)
    before = loaded.to(now.device)
    if not bool((now != before).all()):
        return False
    pair = torch.stack([now, before])
    return bool((torch.corrcoef(pair)[0, 1].abs() < ALIKE).item())
