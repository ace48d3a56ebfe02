"""A forward remembered at a fraction of the usual price, for steps that are only counted."""

from typing import TYPE_CHECKING, Any

import torch
from torchvitals.hooks.calls import Call, Surroundings
from torchvitals.hooks.graph_task import node_counter, number_of

if TYPE_CHECKING:
    import weakref


class Glimpse:
    """The last forward of one root module: enough to run it again, but its outputs' gradients are not kept.

    Autocast is taken to be as it was in the last watched forward, and the state of the generator is kept only
    for a module whose watched forwards have drawn random numbers: to read both takes longer than all the rest.
    Where all watched forwards made equally many autograd nodes, nobody needs to be there when the next ones end.
    """

    __slots__ = (
        "_compiles", "_loss_behind", "_surroundings", "_waits", "call", "draws", "first_node", "next_node", "nodes",
        "number", "output", "steady",
    )  # fmt: skip

    def __init__(self) -> None:
        self.call: tuple[tuple[Any, ...], dict[str, Any], torch.Tensor | None] | None = None
        """Its arguments, and the state of the generator before it."""
        self.output: weakref.ref[torch.Tensor] | None = None
        """What it returned, if that is one tensor."""
        self.first_node: int | None = 0
        """The number of the autograd node that was to be made next when it began; ``None`` where nobody asked."""
        self.next_node: int | None = None
        """The same when it had ended; ``None`` where nobody was there."""
        self.nodes = 0
        """How many the last watched forward made, 0 before the first."""
        self.steady: bool | None = None
        """Whether each of several made as many."""
        self._loss_behind: set[int] = set()
        """By how many nodes losses came later than the end of the watched forwards before them."""
        self._waits = False
        """Whether the last watched forward waits for its loss."""
        self._compiles = False
        """Whether something was compiled since the last watched forward began: that makes nodes of its own."""
        self.number = node_counter()
        self._surroundings: Surroundings | None = None
        self.draws = False
        """Whether a watched forward has drawn random numbers."""

    def begins(self) -> None:
        """A watched forward begins."""
        self.first_node = self.number()
        self._compiles = False

    def compiles(self) -> None:
        """Something is being compiled."""
        self._compiles = True

    def learn(self, surroundings: Surroundings) -> None:
        """It has ended; it began in these ``surroundings``."""
        self._surroundings = surroundings
        self._waits = not self._compiles
        if not self._compiles:
            before, self.nodes = self.nodes, self.number() - (self.first_node or 0)
            if before:
                self.steady = self.steady is not False and before == self.nodes
        if not self.draws:
            self.draws = not torch.equal(surroundings.generator, torch.default_generator.get_state())

    def loss_seen(self, loss: torch.Tensor | None) -> None:
        """A watched backward pass begins at ``loss``."""
        place = number_of(loss.grad_fn) if self._waits and loss is not None and len(self._loss_behind) < 2 else None
        if place is not None:
            self._waits = False
            self._loss_behind.add(place - (self.first_node or 0) - self.nodes)

    def placed_before(self, loss: torch.Tensor | None) -> None:
        """A backward pass begins at ``loss``, of a forward that nobody has numbered: as far ahead as it always was."""
        place = number_of(loss.grad_fn) if self.first_node is None and loss is not None else None
        if place is not None and len(self._loss_behind) == 1:
            self.next_node = place - next(iter(self._loss_behind))

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
        output = self.output() if self.output is not None else None
        if self.next_node is None:
            self.next_node = self.first_node + self.nodes if self.steady and self.first_node is not None else 0
        call.returned_before(output, self.next_node - 1)
        return call
