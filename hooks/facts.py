"""What the code is, as far as its objects tell: read once, for a diagnosis that can speak of causes."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import Module, modules
from torch.optim import Optimizer
from torchvitals.hooks.discovery import Model

_ACTIVATIONS = tuple(
    getattr(modules.activation, name)
    for name in ("ReLU", "ReLU6", "LeakyReLU", "ELU", "SELU", "GELU", "SiLU", "Tanh", "Sigmoid", "Hardtanh",
                 "Softplus", "Softmax", "LogSoftmax", "PReLU", "Mish", "Softsign", "Hardsigmoid")
)  # fmt: skip
_NORM_WORDS = ("norm",)
_GROUP_KEYS = ("lr", "momentum", "weight_decay", "betas", "eps", "amsgrad", "nesterov", "maximize", "fused", "foreach")


def describe_model(model: Model) -> dict[str, Any]:
    """Counts of what ``model`` is made of."""
    parts = list(model.inner.modules())
    parameters = list(model.inner.parameters())
    activations = Counter(type(part).__name__ for part in parts if isinstance(part, _ACTIVATIONS))
    norms = Counter(type(part).__name__ for part in parts if _is_norm(part))
    return {
        "name": model.name,
        "parameters": sum(p.numel() for p in parameters),
        "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        "frozen": sum(p.numel() for p in parameters if not p.requires_grad),
        "wrappers": model.wrappers,
        "activations": dict(activations),
        "norms": dict(norms),
        "weight_layers": sum(any(p is not None and p.dim() > 1 for p in part._parameters.values()) for part in parts),
        "dropout": sum("Dropout" in type(part).__name__ for part in parts),
        "dtype": str(parameters[0].dtype).removeprefix("torch.") if parameters else "",
        "compiled": "OptimizedModule" in model.wrappers or _compiled_in_place(model.inner),
        "scripted": isinstance(model.inner, torch.jit.ScriptModule),
    }


def describe_optimizers(living: Sequence[Optimizer | None], known: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By their number; those that are no more as they were ``known``."""
    before = [*known, *({} for _ in living)]
    return [old if each is None else describe_optimizer(each) for each, old in zip(living, before, strict=False)]


def describe_optimizer(optimizer: Optimizer) -> dict[str, Any]:
    """Class and hyper-parameters by group, plain numbers only."""
    groups = [{key: _plain(group[key]) for key in _GROUP_KEYS if key in group} for group in optimizer.param_groups]
    return {
        "class": type(optimizer).__name__,
        "groups": groups[:16],
        "parameters": sum(len(group["params"]) for group in optimizer.param_groups),
    }


def describe_loader(iterator: Any) -> dict[str, Any]:
    """What the iterator of a data loader tells of its loader."""
    sampler = getattr(iterator, "_index_sampler", None)
    inner = getattr(sampler, "sampler", sampler)
    return {
        "workers": getattr(iterator, "_num_workers", 0),
        "batch_size": getattr(sampler, "batch_size", None),
        "sampler": type(inner).__name__,
    }


def _is_norm(part: Module) -> bool:
    name = type(part).__name__.lower()
    return any(word in name for word in _NORM_WORDS) and not list(part.children())


def _compiled_in_place(module: Module) -> bool:
    return getattr(module, "_compiled_call_impl", None) is not None


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 and value.device.type == "cpu" else None
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else None
