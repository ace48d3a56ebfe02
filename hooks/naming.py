"""What the parameters and modules of the known models are called."""

import sys
from collections.abc import Iterable, Sequence

import torch
from torch.nn import Module
from torchvitals.hooks import discovery, shards
from torchvitals.hooks.facts import describe_model
from torchvitals.hooks.recorder import Recorder


class Naming:
    """The models known so far, and the names of everything in them."""

    def __init__(self) -> None:
        self.models: list[discovery.Model] = []
        self.sharded = False
        """Whether parameters are DTensors, of which each rank holds a part."""
        self.sharing: list[Module] = []
        """The wrappers that share gradients between ranks and can be told not to (``no_sync``)."""
        self._names: dict[int, str] = {}
        self._kinds: dict[int, str] = {}
        self._order: dict[int, int] = {}

    def adopt(self, models: Iterable[discovery.Model], recorder: Recorder) -> None:
        """Learn the names in ``models`` and tell ``recorder`` what they are."""
        self.models = discovery.outermost([*self.models, *models])
        self._names = discovery.parameter_names(self.models)
        self._kinds = discovery.parameter_kinds(self.models)
        self._order = {key: position for position, key in enumerate(self._names)}
        self.sharded = any(hasattr(p, "to_local") for model in self.models for p in model.inner.parameters())
        self.sharing = [wrapper for model in self.models for wrapper in discovery.sharing(model)]
        recorder.learn(models=[describe_model(model) for model in self.models], distributed=self._parallelism())

    def names_of(self, parameters: Sequence[torch.Tensor]) -> list[str]:
        """The names of ``parameters``, numbered where no model is known to own them."""
        return [self._names.get(id(p), f"parameter[{i}]") for i, p in enumerate(parameters)]

    def kinds_of(self, parameters: Sequence[torch.Tensor]) -> list[str]:
        """The class names of the modules that own ``parameters``; empty where unknown."""
        return [self._kinds.get(id(p), "") for p in parameters]

    def in_model_order(self, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """``parameters`` from the input on: groups sort them by decay, the model by where they sit."""
        return sorted(parameters, key=lambda p: self._order.get(id(p), len(self._order)))

    def whole_of(self, parameter: torch.Tensor) -> torch.Tensor | None:
        """What this rank alone computes the gradient of, where ``parameter`` is only its shard."""
        modules = (module for model in self.models for module in model.inner.modules())
        return shards.whole_of(parameter, modules) if self.sharded else None

    def prefix_of(self, module: Module) -> str:
        """Path of ``module`` in the model that owns it, with a dot, or empty for a model itself."""
        inner = discovery.unwrap(module).inner
        for model in self.models:
            for name, candidate in model.inner.named_modules():
                if candidate is inner:
                    path = discovery.plain_name(name)
                    return f"{path}." if path else ""
        return ""

    def _parallelism(self) -> str | None:
        wrappers = {name for model in self.models for name in model.wrappers}
        if self.sharded:
            return "fsdp2"
        if "FullyShardedDataParallel" in wrappers:
            return "fsdp1"
        if "DistributedDataParallel" in wrappers:
            return "ddp"
        module = sys.modules.get("torch.distributed")
        return "manual" if module is not None and module.is_available() and module.is_initialized() else None
