"""One forward of the root module, as it takes to run it once more: inputs, generators, autocast, gradients."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.births import kind_of
from torchvitals.hooks.nested import replaced, tensors


class Surroundings(NamedTuple):
    """What a forward depends on besides its inputs and weights."""

    autocast: tuple[str, bool, torch.dtype]
    """Device type, whether it is on, and to what."""
    generator: torch.Tensor
    """State of the CPU's generator."""
    device_generator: torch.Tensor | None


class Call:
    """Keeps references to the inputs, and generator states; outputs only weakly.

    Args:
        probe: a parameter of the module: tells the device, and by its version whether weights changed since.
        args: as the module was called.
        kwargs: as the module was called.
        largest_gradient: bytes of output gradients that may be kept.
        surroundings: generators and autocast as they were, when they were read before.
    """

    __slots__ = (
        "__weakref__", "_largest", "_outputs", "_probe", "_probe_version", "_versions", "args", "gradients", "kwargs",
        "sequence", "substituted", "surroundings",
    )  # fmt: skip

    def __init__(
        self,
        probe: torch.Tensor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        largest_gradient: int,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        self.gradients: dict[int, torch.Tensor] = {}
        self.sequence = -1
        self.substituted = ""
        self._largest = largest_gradient
        self._probe = weakref.ref(probe)
        self._probe_version = probe._version
        self._versions = _versions(args) + _versions(kwargs) if kwargs else _versions(args)
        self._outputs: list[weakref.ref[torch.Tensor]] = []
        self.surroundings = surroundings or surroundings_of(probe.device)

    def returned(self, output: Any) -> None:
        """The forward has returned ``output``: ask its nodes to show us the gradients that will flow into it."""
        for position, tensor in enumerate((output,) if isinstance(output, torch.Tensor) else tensors(output)):
            self._outputs.append(weakref.ref(tensor))
            node = tensor.grad_fn
            if node is not None:
                self.sequence = max(self.sequence, node._sequence_nr())
                node.register_prehook(_Keep(self, position, tensor.output_nr))

    def returned_before(self, output: torch.Tensor | None, sequence: int) -> None:
        """The forward returned ``output`` when nobody asked for its gradients; ones stand in for them."""
        if output is not None:
            self._outputs.append(weakref.ref(output))
        self.sequence = sequence
        self.substituted = "the gradients of the outputs were not kept at this step: ones were used in their place"

    def keep(self, position: int, gradient: torch.Tensor) -> None:
        """The gradient of output number ``position`` has arrived; a second backward adds to it."""
        if gradient.requires_grad:  # create_graph: the graph of a gradient is not ours to keep
            gradient = gradient.detach()
        if gradient.numel() * gradient.element_size() > self._largest:
            self.substituted = "an output's gradient was too large to keep: one of ones was used in its place"
        elif position in self.gradients:
            self.gradients[position] = self.gradients[position] + gradient
        else:
            self.gradients[position] = gradient

    def outputs_finite(self) -> bool:
        """Are all outputs alive and finite (or infinite on purpose: ``-inf`` alone)? Then the forward was well."""
        living = [reference() for reference in self._outputs]
        if not living or any(tensor is None for tensor in living):
            return False
        kinds = [kind_of(tensor.detach()) for tensor in living if tensor is not None]
        return all(kind is None or kind.worst == "-inf" for kind in kinds)

    def outputs_bad(self) -> bool:
        """Is an output known to hold NaN or ``+inf``?"""
        kinds = [kind_of(tensor.detach()) for reference in self._outputs if (tensor := reference()) is not None]
        return any(kind is not None and kind.worst != "-inf" for kind in kinds)

    def changed(self, *, gradients: bool) -> str:
        """Why running again would not be the same as it was; empty if it would be."""
        probe = self._probe()
        if probe is None or probe._version != self._probe_version:
            return "the weights have changed since"
        if any(reference._version != version for reference, version in self._versions):
            return "the inputs were changed in place since"
        if gradients and not self.gradients and not self.substituted:
            return "no gradient flowed into the model's outputs"
        return ""

    def inputs(self) -> tuple[Any, Any]:
        """The arguments with tensors cut loose from graphs and hooks of the job."""
        cut = lambda t: t.detach().requires_grad_(t.requires_grad)  # noqa: E731
        return replaced(self.args, cut), replaced(self.kwargs, cut)

    def devices(self) -> list[int]:
        """CUDA devices whose generators a replay advances."""
        probe = self._probe()
        return [probe.device.index or 0] if probe is not None and probe.device.type == "cuda" else []

    def restore_generators(self) -> None:
        """Let random numbers come as they came then."""
        torch.default_generator.set_state(self.surroundings.generator)
        for device in self.devices():
            if self.surroundings.device_generator is not None:
                torch.cuda.default_generators[device].set_state(self.surroundings.device_generator)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast as it was; without its cache, where weights of the job would be left behind."""
        kind, enabled, dtype = self.surroundings.autocast
        return torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=False)

    def roots(self, output: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The outputs of the second forward that got gradients in the first, and those gradients."""
        pairs = list(self._pairs(output))
        return [root for root, _ in pairs], [gradient for _, gradient in pairs]

    def _pairs(self, output: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for position, tensor in enumerate(tensors(output)):
            if not tensor.requires_grad:
                continue
            gradient = self.gradients.get(position)
            if gradient is not None:
                yield tensor, gradient
            elif self.substituted:
                yield tensor, torch.ones_like(tensor) / tensor.numel()


class _Keep:
    """Called by autograd with the gradients of a node; holds the call weakly: a kept graph must not keep inputs."""

    __slots__ = ("_call", "_index", "_position")

    def __init__(self, call: Call, position: int, index: int) -> None:
        self._call = weakref.ref(call)
        self._position = position
        self._index = index

    def __call__(self, gradients: tuple[torch.Tensor | None, ...]) -> None:
        call = self._call()
        gradient = gradients[self._index] if self._index < len(gradients) else None
        if call is not None and gradient is not None:
            call.keep(self._position, gradient)


def surroundings_of(device: torch.device) -> Surroundings:
    """What a forward on ``device`` depends on besides its inputs and weights, as it is now."""
    kind = device.type
    autocast = (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
    return Surroundings(autocast, torch.default_generator.get_state(), _cuda_state(device) if kind == "cuda" else None)


def _versions(value: Any) -> list[tuple[torch.Tensor, int]]:
    return [(tensor, tensor._version) for tensor in tensors(value) if not tensor.is_inference()]


def _cuda_state(device: torch.device) -> torch.Tensor | None:
    if torch.cuda.is_current_stream_capturing():
        return None
    return torch.cuda.default_generators[device.index or 0].get_state()
