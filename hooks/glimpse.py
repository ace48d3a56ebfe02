"""A forward remembered at a fraction of the usual price, for steps that are only counted."""

from typing import TYPE_CHECKING, Any

import torch
from torchvitals.hooks.calls import Call, Surroundings
from torchvitals.hooks.graph_task import node_counter

if TYPE_CHECKING:
    import weakref


class Glimpse:
    """The last forward of one root module: enough to run it again, but its outputs' gradients are not kept.

    Autocast is taken to be as it was in the last watched forward, and the state of the generator is kept only
    for a module whose watched forwards have drawn random numbers: to read both takes longer than all the rest.
    """

    __slots__ = ("_surroundings", "call", "draws", "next_node", "number", "output")

    def __init__(self) -> None:
        self.call: tuple[tuple[Any, ...], dict[str, Any], torch.Tensor | None] | None = None
        """Its arguments, and the state of the generator before it."""
        self.output: weakref.ref[torch.Tensor] | None = None
        """What it returned, if that is one tensor."""
        self.next_node = 0
        """The number of the autograd node that was to be made next."""
        self.number = node_counter()
        self._surroundings: Surroundings | None = None
        self.draws = False
        """Whether a watched forward has drawn random numbers."""

    def learn(self, surroundings: Surroundings) -> None:
        """A watched forward, begun in these ``surroundings``, has ended."""
        self._surroundings = surroundings
        if not self.draws:
            self.draws = not torch.equal(surroundings.generator, torch.default_generator.get_state())

    def take(self, probe: torch.Tensor, largest_gradient: int) -> Call | None:
        """The forward as a call that can be run again, once; arguments as for :class:`Call`."""
        seen, self.call = self.call, None
        if seen is None or self._surroundings is None:
            return None
        args, kwargs, generator = seen
        surroundings = self._surroundings
        if generator is not None:
            surroundings = surroundings._replace(generator=generator)
        call = Call(probe, args, kwargs, largest_gradient, surroundings)
        if self.output is not None:
            call.returned_before(self.output(), self.next_node - 1)
        else:
            call.returned_before(None, -1)
        return call
