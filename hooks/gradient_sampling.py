"""The gradient profile of one optimizer at its sampled steps: begun before the update is applied, sent after it."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torchvitals.hooks import replica_groups
from torchvitals.hooks.hyperparameters import adaptive_epsilon, resting
from torchvitals.hooks.profiles import GradientProfile, update_share
from torchvitals.signals.records import Axis, Profile, pack_floats

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer
    from torchvitals.hooks.optimizers import OptimizerWatch


class GradientSampling:
    """Profiles the parameters of ``watch`` when told to."""

    def __init__(self, watch: "OptimizerWatch", observer: "Observer") -> None:
        self._watch = watch
        self._naming = observer.naming
        self._recorder = observer.recorder
        self._profile: GradientProfile | None = None
        self._facts: dict[str, Any] = {}
        self._cost = 0.0
        self._running = False
        self._start = observer.recorder.fuse.guard("profile", self._begin)
        self._finish = observer.recorder.fuse.guard("profile", self._send)

    def renew(self) -> None:
        """The parameters are others now."""
        self._profile = None

    def drop(self) -> None:
        """The step that was begun is not applied."""
        self._running = False

    def begin(self, scale: torch.Tensor | None, *, applied: bool) -> dict[str, float]:
        """Before the step, or, with a closure, when it has been ``applied``. What the step record should say of it."""
        return self._start(scale, applied) or {}

    def finish(self) -> dict[str, float]:
        """The step has been applied: write the profile, if one was begun. What the step record should say of it."""
        return (self._finish(self.declared()) or {}) if self._running else {}

    def declared(self) -> GradientProfile:
        """The profile; the entries of the parameter axis are named before any record refers to them."""
        if self._profile is None:
            parameters = self._watch.parameters
            names, kinds = self._naming.names_of(parameters), self._naming.kinds_of(parameters)
            held = replica_groups.replicas(parameters, self._naming.models)
            self._recorder.write(Axis(self._watch.axis, "parameter", names, {"kinds": kinds, "replicas": held}))
            self._profile = GradientProfile(names, parameters, dict(zip(names, kinds, strict=True)))
        return self._profile

    def _begin(self, scale: torch.Tensor | None, applied: bool) -> dict[str, float]:
        began = time.perf_counter()
        interval = self._recorder.budget.interval("sample", self._watch.step, self._watch.index)
        optimizer = self._watch.optimizer()
        still = resting(optimizer) if optimizer is not None else ()
        profile = self.declared()
        self._facts = profile.before(scale, applied=applied, resting=still)
        heard = set().union(*(root.heard for root in self._watch.roots))
        if (cut := _cut_off(profile.names, self._watch.parameters, heard)) is not None:
            self._facts["parameter_cut"] = cut
        self._running = True
        self._cost = time.perf_counter() - began
        return {"sampling_interval": float(interval)}

    def _send(self, profile: GradientProfile) -> dict[str, float]:
        began = time.perf_counter()
        self._running = False
        watch, recorder = self._watch, self._recorder
        measured = {**self._facts, **profile.after()}
        packed = {name: pack_floats(value) for name, value in measured.items()}
        shares = self._shares(measured)
        recorder.write(Profile(watch.step, recorder.clock(), watch.axis, packed, watch.index))
        recorder.budget.done("sample", watch.step, self._cost + time.perf_counter() - began, watch.index)
        return shares

    def _shares(self, measured: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """How far this step has moved the weights, and whether the optimizer's ``eps`` has kept it from adapting."""
        shares = {} if (moved := update_share(measured)) is None else {"update_share": moved}
        optimizer = self._watch.optimizer()
        epsilon = adaptive_epsilon(optimizer) if optimizer is not None else 0.0
        if epsilon:
            sizes = np.array([parameter.numel() for parameter in self._watch.parameters], dtype=np.float64)
            gradients = measured["parameter_gradient_norm"]
            largest = float(np.max(gradients / np.sqrt(np.maximum(sizes, 1.0)), initial=0.0))
            shares["epsilon_share"] = epsilon / (epsilon + largest)
        return shares


def _cut_off(
    names: Sequence[str], parameters: Sequence[torch.Tensor], heard: Collection[str]
) -> NDArray[np.float64] | None:
    """1 for the parameters nearest to the input that get no gradient though their modules are called, and others do.

    Something lies between them and the loss: ``detach()``, ``.data``, NumPy. A head that nobody asks is near the end.
    """
    trained = [place for place, parameter in enumerate(parameters) if parameter.requires_grad]
    end = next((at for at, place in enumerate(trained) if parameters[place].grad is not None), 0)
    if not end or any(names[place].rpartition(".")[0] not in heard for place in trained[:end]):
        return None
    flags = np.zeros(len(parameters))
    flags[trained[:end]] = 1.0
    return flags
