"""A forward remembered at a third of the usual price, for steps that are only counted."""

import weakref
from typing import Any

import torch
from torchvitals.hooks.calls import Call, Surroundings, surroundings_of


class Glimpse:
    """The last forward of one root module: enough to run it again, but its outputs' gradients are not kept."""

    __slots__ = ("_call", "_output")

    def __init__(self) -> None:
        self._call: tuple[tuple[Any, ...], dict[str, Any], Surroundings] | None = None
        self._output: tuple[weakref.ref[torch.Tensor], int] | None = None

    def see(self, device: torch.device, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The module, on ``device``, is about to be called."""
        self._call = (args, kwargs, surroundings_of(device))
        self._output = None

    def see_output(self, output: Any) -> None:
        """It has returned ``output``."""
        if isinstance(output, torch.Tensor) and output.grad_fn is not None:
            self._output = weakref.ref(output), output.grad_fn._sequence_nr()

    def forget(self) -> None:
        """Let go of the inputs."""
        self._call = None

    def take(self, probe: torch.Tensor, largest_gradient: int) -> Call | None:
        """The forward as a call that can be run again, once; arguments as for :class:`Call`."""
        seen, self._call = self._call, None
        if seen is None:
            return None
        args, kwargs, surroundings = seen
        call = Call(probe, args, kwargs, largest_gradient, surroundings)
        reference, sequence = self._output or (None, -1)
        call.returned_before(reference() if reference is not None else None, sequence)
        return call
