"""One pass over the modules of a model that draws the same weights again and again (transformers-17877).

``Module.apply(function)`` visits every module once, children first. A function that also reaches below the module that
it is given, by ``named_parameters()``, draws a weight on behalf of its own module, of the block around it, of the list
of blocks and of the model. Where it draws differently in these visits, which draw stays hangs on their order alone.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Parameter
from torchvitals.hooks.source import Line
from torchvitals.hooks.weight_marks import middle_element

PASSES = 64
"""Passes that are looked at: nested constructors make one each, a policy that draws its noise so goes on for ever."""
WEIGHTS = 512
"""Weights that are followed in a pass, evenly spread; reading one takes a microsecond."""
SAMPLE = 1024
"""Values from which the scale of a draw is taken, at most."""
DRAWS = 3
"""The module that holds a weight and the one around it are two; a third has no business with it."""
UNLIKE = 8.0
"""Over the root of the sample, how much larger one scale must be than another: five times what chance makes of a pair.
Of 1,024 values that is a quarter; the blocks of a transformer of one layer are scaled by 0.7, of twelve by 0.2."""


class Drawn:
    """One weight in the pass in progress."""

    __slots__ = ("place", "scales", "value", "weight")

    def __init__(self, name: str, weight: torch.Tensor) -> None:
        self.place = name
        self.weight = weight
        self.value = middle_element(weight).item()
        self.scales: list[float] = []

    def visited(self) -> None:
        """A visit is over: note the scale of what it has drawn, if it has."""
        now = middle_element(self.weight).item()
        if now != self.value and now == now:  # noqa: PLR0124 (NaN)
            flat = self.weight.detach().reshape(-1)
            self.value = now
            self.scales.append(float(flat[:: -(-len(flat) // SAMPLE)].float().std(correction=0)))

    @property
    def fought_over(self) -> bool:
        """Whether several modules drew it, and not all in the same way."""
        if len(self.scales) < DRAWS:
            return False
        sample = min(SAMPLE // 2, self.weight.numel())  # a stride takes half of them where they are few more
        allowed: float = 1.0 + UNLIKE / sample**0.5
        return max(self.scales) > min(self.scales) * allowed


class InitPasses:
    """Follows ``Module.apply`` until the job trains.

    Args:
        tell: is called with the details of the relation.
    """

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._left = PASSES
        self._depth = 0
        self._drawn: dict[int, Drawn] = {}

    def begins(self, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """``apply`` of a module, or of one inside it, begins."""
        if not self._depth and self._left > 0:
            self._left -= 1
            named = [(name, each) for name, each in args[0].named_parameters() if _followed(each)]
            self._drawn = {id(each): Drawn(name, each) for name, each in named[:: -(-len(named) // WEIGHTS) or 1]}
        self._depth += 1

    def ended(self, _result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """It has ended: since the one before ended nobody but this module's visit has written."""
        self._depth -= 1
        if not self._drawn:
            return
        for parameter in args[0].parameters():
            if drawn := self._drawn.get(id(parameter)):
                drawn.visited()
        if not self._depth:
            self._judge(args[1] if len(args) > 1 else kwargs.get("fn"))
            self._drawn = {}

    def _judge(self, function: Any) -> None:
        found = [drawn for drawn in self._drawn.values() if drawn.fought_over]
        if not found:
            return
        most = max(found, key=lambda drawn: len(drawn.scales))
        self._tell(
            line=str(_definition(function)),
            function=getattr(function, "__name__", ""),
            parameter=most.place,
            parameters=len(found),
            draws=len(most.scales),
            widest=max(most.scales),
            last=most.scales[-1],
        )


def _followed(parameter: Parameter) -> bool:
    plain = type(parameter) is Parameter and parameter.is_cpu and parameter.layout is torch.strided
    return plain and parameter.dim() > 1 and parameter.is_floating_point() and parameter.numel() > 0


def _definition(function: Any) -> Line:
    """Where the function is written that was given to ``apply``."""
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    return Line(code.co_filename, code.co_firstlineno) if code is not None else Line()
