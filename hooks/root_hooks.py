"""What is registered on a root module: hooks that a copy of the model does not inherit."""

import contextlib
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module
from torchvitals.hooks.tracing import callback, dynamo_traces, unreal

if TYPE_CHECKING:
    from torchvitals.hooks.forwards import RootWatch


_is_grad_enabled = torch.is_grad_enabled
"""Not looked up at each call: torch has two thousand names, and where they are kept is cold when a step comes by."""


def _nobody() -> None:
    """Watches nothing."""


class RootHook:
    """A forward hook of one model.

    A deep copy's hook does nothing, and a pickled model carries a harmless standard-library callable, so
    that it loads where torchvitals is not installed.
    """

    __slots__ = ("_watch",)

    def __init__(self, watch: "RootWatch | None") -> None:
        self._watch = weakref.ref(watch) if watch is not None else _nobody

    def __deepcopy__(self, memo: dict[int, Any]) -> "RootHook":
        return type(self)(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class EnterHook(RootHook):
    """Forward begins."""

    __slots__ = ()

    def __call__(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if dynamo_traces() or callback():
            return
        watch = self._watch()
        if watch is None:
            return
        if watch.counted.left and module.training and _is_grad_enabled():
            watch.enter_counted(args, kwargs)
        elif not unreal():
            watch.entered(module, args, kwargs)


class LeaveHook(RootHook):
    """Forward has ended."""

    __slots__ = ()

    def __call__(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if dynamo_traces():
            return
        watch = self._watch()
        if watch is None:
            return
        if watch.is_counted:
            watch.leave_counted(output)
        elif not unreal():
            watch.left(module, args, kwargs, output)
