"""Gradients that a job asks for by ``torch.autograd.grad`` or ``torch.func``, to change its weights itself.

Only a job without an optimizer is listened to: with one these are penalties, inner loops and gradients of samples.
What ``torch.autograd.grad`` calls is tapped and not the function itself, which dynamo knows by its identity.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torchvitals.hooks.losses import single
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.taps import Taps
from torchvitals.hooks.tracing import unreal

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

ENGINE = "_engine_run_backward"
"""What both ``backward`` and ``grad`` look up in ``torch.autograd``, where it is."""


class Differentiation:
    """Hands such gradients to those who close the steps of a job that steps by hand.

    Args:
        observer: who knows whether there is an optimizer.
    """

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._taps = Taps()
        self._inside = False
        """Whether the weights of the call that runs are the job's."""

    def install(self, guard: Callable[[str, Callable[..., Any]], Callable[..., Any]]) -> None:
        """Listen to both ways, until an optimizer is made.

        Private: ``torch.autograd._engine_run_backward``, ``torch._functorch.eager_transforms.grad_and_value_impl``.
        """
        if self._observer.optimizers:
            return
        asked, answered = guard("by hand", self._asked), guard("by hand", self._answered)
        self._taps.wrap(torch.autograd, ENGINE, asked, answered)
        transforms = getattr(getattr(torch, "_functorch", None), "eager_transforms", None)
        self._taps.wrap(transforms, "grad_and_value_impl", None, guard("by hand", self._transformed))
        self._taps.wrap(Optimizer, "__init__", guard("by hand", lambda *_: self.remove()))

    def remove(self) -> None:
        """Listen no more."""
        self._taps.remove()

    def _asked(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer = self._observer
        self._inside = False
        if kwargs.get("accumulate_grad", True) or not observer.by_hand.alone or unreal():  # a transform asks so, too
            return
        loss, weights = single(args[0]), _weights(args)
        if loss is None or not observer.by_hand.of_parameters(weights):
            return
        self._inside = True
        observer.by_hand.begins()
        observer.losses.backward_begins(loss)

    def _answered(self, result: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        if not self._inside:
            return
        self._inside = False
        self._observer.losses.backward_ended()
        if isinstance(result, tuple):
            self._observer.by_hand.differentiated(_weights(args), result)

    def _transformed(self, result: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """``(func, argnums, has_aux, args, kwargs)`` gave gradients and a value, which no graph leads back from."""
        observer = self._observer
        if not observer.by_hand.alone or unreal() or not isinstance(result, tuple) or len(args) < 4:
            return
        (found, value), (_, argnums, has_aux, given) = result, args[:4]
        chosen = [given[number] for number in ((argnums,) if isinstance(argnums, int) else argnums)]
        weights, loss = list(tensors(chosen)), value[0] if has_aux else value
        if isinstance(loss, torch.Tensor) and observer.by_hand.of_parameters(weights):
            observer.by_hand.begins()
            observer.pending.losses.append(loss.detach())
            observer.pending.nonfinite_loss = loss.is_cpu and not bool(torch.isfinite(loss))
            observer.by_hand.differentiated(weights, list(tensors(found)))


def _weights(args: tuple[Any, ...]) -> Sequence[torch.Tensor]:
    """What gradients are asked of, the fifth argument, where all of it are leaves; penalties ask of inputs, too."""
    asked = list(tensors(args[4])) if len(args) > 4 else []
    return asked if all(tensor.is_leaf for tensor in asked) else []
