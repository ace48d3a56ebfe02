"""A forward remembered at a fraction of the usual price, for steps that are only counted."""

import weakref
from typing import Any

import torch
from torchvitals.hooks.calls import Call, Surroundings
from torchvitals.hooks.graph_task import next_sequence_number


class Glimpse:
    """The last forward of one root module: enough to run it again, but its outputs' gradients are not kept.

    Autocast is taken to be as it was in the last watched forward, and the state of the generator is kept only
    for a module whose watched forwards have drawn random numbers: to read both takes longer than all the rest.
    """

    __slots__ = ("_call", "_output", "_surroundings", "draws")

    def __init__(self) -> None:
        self._call: tuple[tuple[Any, ...], dict[str, Any], torch.Tensor | None] | None = None
        self._output: tuple[weakref.ref[torch.Tensor], int] | None = None
        self._surroundings: Surroundings | None = None
        self.draws = False
        """Whether a watched forward has drawn random numbers."""

    def learn(self, surroundings: Surroundings) -> None:
        """A watched forward, begun in these ``surroundings``, has ended."""
        self._surroundings = surroundings
        if not self.draws:
            self.draws = not torch.equal(surroundings.generator, torch.default_generator.get_state())

    def see(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The module is about to be called."""
        self._call = args, kwargs, torch.default_generator.get_state() if self.draws else None
        self._output = None

    def see_output(self, output: Any) -> None:
        """It has returned ``output``."""
        if isinstance(output, torch.Tensor):
            self._output = weakref.ref(output), next_sequence_number() - 1

    def forget(self) -> None:
        """Let go of the inputs."""
        self._call = None

    def take(self, probe: torch.Tensor, largest_gradient: int) -> Call | None:
        """The forward as a call that can be run again, once; arguments as for :class:`Call`."""
        seen, self._call = self._call, None
        if seen is None or self._surroundings is None:
            return None
        args, kwargs, generator = seen
        surroundings = self._surroundings
        if generator is not None:
            surroundings = surroundings._replace(generator=generator)
        call = Call(probe, args, kwargs, largest_gradient, surroundings)
        reference, sequence = self._output or (None, -1)
        call.returned_before(reference() if reference is not None else None, sequence)
        return call
