"""Finding the model without being told: the modules alive that own what the optimizer updates."""

import gc
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch.nn import Module
from torch.optim import Optimizer

WRAPPERS = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel", "OptimizedModule")
NAME_PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")


class Model(NamedTuple):
    """A model found: its outermost module, the one inside all wrappers, and the wrappers' class names."""

    outer: Module
    inner: Module
    wrappers: list[str]

    @property
    def name(self) -> str:
        """The class name of the inner module."""
        return type(self.inner).__name__


def owners(parameters: Iterable[torch.Tensor]) -> list[Model]:
    """The outermost living modules that own any of ``parameters``, those owning most of them first.

    One pass over the garbage collector's objects: 20 to 60 ms in a usual process, once per optimizer.
    ``issubclass(type(x), ...)`` and not ``isinstance``, which would run the ``__class__`` of lazy proxies.
    """
    wanted = {id(parameter) for parameter in parameters}
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), Module)]
    children = {id(child) for module in modules for child in module._modules.values()}
    found: list[tuple[int, Model]] = []
    for module in modules:
        if id(module) in children:
            continue
        owned = sum(id(parameter) in wanted for parameter in module.parameters())
        if owned:
            found.append((owned, unwrap(module)))
    found.sort(key=lambda pair: -pair[0])
    return outermost([model for _, model in found])


def unwrap(module: Module) -> Model:
    """``module`` without the wrappers of DDP, FSDP and torch.compile."""
    inner, wrappers = module, []
    while type(inner).__name__ in WRAPPERS:
        wrappers.append(type(inner).__name__)
        following = inner._modules.get("_orig_mod") or inner._modules.get("module")
        if following is None:
            break
        inner = following
    return Model(module, inner, wrappers)


def real_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer that steps inside the wrappers of Accelerate, Fabric and Lightning, whose hooks never run."""
    seen = set()
    while isinstance(inside := getattr(optimizer, "optimizer", None), Optimizer) and id(inside) not in seen:
        seen.add(id(inside))
        optimizer = inside
    return optimizer


def sharing(model: Model) -> list[Module]:
    """The wrappers around ``model`` that reduce gradients in backward unless told not to (DDP's ``no_sync``)."""
    chain: list[Module] = [model.outer]
    for _ in model.wrappers:
        following = chain[-1]._modules.get("_orig_mod") or chain[-1]._modules.get("module")
        if following is None:
            break
        chain.append(following)
    return [module for module in chain if isinstance(getattr(module, "require_backward_grad_sync", None), bool)]


def hookable(module: Module) -> Module:
    """The module whose forward can be hooked: the compiled wrapper, which runs eagerly, else the inner module."""
    model = unwrap(module)
    if "OptimizedModule" not in model.wrappers:
        return model.inner
    while type(module).__name__ != "OptimizedModule":
        module = module._modules["module"]  # type: ignore[assignment]
    return module


def parameter_names(models: Iterable[Model]) -> dict[int, str]:
    """Parameter id → its names joined by `` = `` (a tied weight has several), without wrapper prefixes.

    With several models the names begin with the class of the model, numbered when two share one.
    """
    models = list(models)
    prefixes = _model_prefixes(models)
    names: dict[int, list[str]] = {}
    for model, prefix in zip(models, prefixes, strict=True):
        for name, parameter in model.inner.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(prefix + plain_name(name))
    return {key: " = ".join(dict.fromkeys(aliases)) for key, aliases in names.items()}


def parameter_kinds(models: Iterable[Model]) -> dict[int, str]:
    """Parameter id → class name of the module that owns it."""
    kinds: dict[int, str] = {}
    for model in models:
        for module in model.inner.modules():
            for parameter in module._parameters.values():
                if parameter is not None:
                    kinds.setdefault(id(parameter), type(module).__name__)
    return kinds


def plain_name(name: str) -> str:
    """``name`` without the parts that wrappers put in.

    >>> plain_name("module.encoder._orig_mod.layer.weight")
    'encoder.layer.weight'
    """
    for prefix in NAME_PREFIXES:
        name = name.removeprefix(prefix).replace("." + prefix, ".")
    return name


def _model_prefixes(models: list[Model]) -> list[str]:
    if len(models) <= 1:
        return [""] * len(models)
    seen: dict[str, int] = {}
    prefixes = []
    for model in models:
        seen[model.name] = seen.get(model.name, 0) + 1
        number = f"#{seen[model.name]}" if seen[model.name] > 1 else ""
        prefixes.append(f"{model.name}{number}.")
    return prefixes


def outermost(models: list[Model]) -> list[Model]:
    """``models`` without repeats and without those that are part of another; the order is kept."""
    parts = [{id(module) for module in model.inner.modules()} for model in models]
    kept: list[Model] = []
    for position, model in enumerate(models):
        key = id(model.inner)
        inside = any(key in other and len(other) > len(parts[position]) for other in parts)
        if not inside and all(model.inner is not earlier.inner for earlier in kept):
            kept.append(model)
    return kept
