"""Which models must not be run a second time, and why."""

from collections.abc import Callable

import torch
from torch.nn import Module

_Predicate = Callable[[Module, str], bool]
_REFUSALS: tuple[tuple[_Predicate, str], ...] = (
    (lambda m, _: isinstance(m, torch.jit.ScriptModule), "the model is a TorchScript module"),
    (
        lambda m, _: type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None,
        "the model is compiled: its operations do not exist one by one",
    ),
    (
        lambda m, _: isinstance(m, torch.nn.SyncBatchNorm) and torch.distributed.is_initialized(),
        "the model holds a SyncBatchNorm, which communicates",
    ),
    (
        lambda m, _: type(m).__name__ in ("DistributedDataParallel", "FullyShardedDataParallel"),
        "a part of the model communicates by itself",
    ),
    (lambda m, _: isinstance(m, torch.nn.modules.lazy.LazyModuleMixin), "the model has lazy parameters"),
)


def refusal(module: Module) -> str:
    """Why ``module`` must not be run again; empty if it may be."""
    for name, child in module.named_modules():
        for predicate, reason in _REFUSALS:
            if predicate(child, name):
                return reason
        if any(type(p).__name__ == "DTensor" for p in child._parameters.values()):
            return "the parameters are sharded: running the model again would communicate"
    return ""
