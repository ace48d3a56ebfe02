"""Records what the profiles and the step scalars of a small real training say, without a spool between."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvitals.detectors.detector import Detector, Finding, Reading
from torchvitals.hooks.activations import ActivationProfile
from torchvitals.hooks.profiles import GradientProfile


class Probe:
    """Hooks on one model and one optimizer; ``readings`` is (axis, reading) in order, ``entries`` the names by axis.

    Args:
        interval: steps between sampled ones.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, interval: int) -> None:
        self.interval = interval
        self.step = 0
        self.loss = float("nan")
        self.readings: list[tuple[str, Reading]] = []
        self.entries: dict[str, list[str]] = {"rank": ["0"]}
        self.owned = {id(parameter) for parameter in model.parameters()}
        self._activations = ActivationProfile(model)
        self._gradients = self._profile(model, optimizer)
        model.register_forward_pre_hook(self._enter)
        model.register_forward_hook(self._leave)
        optimizer.register_step_pre_hook(self._before)
        optimizer.register_step_post_hook(self._after)

    def _profile(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> GradientProfile:
        names = {id(p): name for name, p in model.named_parameters()}
        kinds = {
            f"{path}.{name}" if path else name: type(module).__name__
            for path, module in model.named_modules()
            for name, _ in module.named_parameters(recurse=False)
        }
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.entries["parameter"] = [names.get(id(p), f"stale{i}") for i, p in enumerate(self.parameters)]
        return GradientProfile(self.entries["parameter"], self.parameters, kinds)

    def _sampled(self) -> bool:
        return self.step % self.interval == 0

    def _enter(self, model: nn.Module, _inputs: Any) -> None:
        if self._sampled() and model.training:
            self._activations.install()

    def _leave(self, _model: nn.Module, _inputs: Any, output: Any) -> None:
        self._activations.remove()
        entries, values = self._activations.collect(output)
        if entries:
            self.entries["module"] = entries
            self._keep("module", values)

    def _before(self, optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        grads = [p.grad for p in self.parameters if p.grad is not None]
        scalars = {
            "learning_rate": max(group["lr"] for group in optimizer.param_groups),
            "optimizer_extra_parameters": sum(id(p) not in self.owned for p in self.parameters),
            "parameters_without_gradient": sum(p.requires_grad and p.grad is None for p in self.parameters),
        }
        if grads:
            scalars["gradient_norm"] = float(torch.stack([g.to_dense().norm() for g in grads]).norm())
        self._scalars = scalars
        if self._sampled():
            self._rows = self._gradients.before()

    def _after(self, _optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._sampled():
            self._keep("parameter", {**self._rows, **self._gradients.after()})
        self._keep("rank", {k: np.array([float(v)]) for k, v in {**self._scalars, "loss": self.loss}.items()})
        self.step += 1

    def _keep(self, axis: str, values: dict[str, Any]) -> None:
        values = {name: np.asarray(v, dtype=np.float32).astype(np.float64) for name, v in values.items()}
        present = {name: ~(v < 0) if axis != "rank" else np.ones(len(v), bool) for name, v in values.items()}
        self.readings.append((axis, Reading(self.step, float(self.step), values, present)))

    def backward(self, loss: Tensor) -> None:
        """Remember the loss, for the step that follows."""
        self.loss = float(loss.detach())
        loss.backward()


def findings(probe: Probe, detectors: list[type[Detector]]) -> list[Finding]:
    """Everything the detectors say of a recording, named."""
    running = [detector() for detector in detectors]
    found = []
    for axis, reading in probe.readings:
        for detector in running:
            if detector.axis == axis:
                found += [_named(finding, probe.entries[axis]) for finding in detector.update(reading)]
    return found


def _named(finding: Finding, entries: list[str]) -> Finding:
    name = "" if finding.subject is None else entries[finding.subject]
    return Finding(**{**{f: getattr(finding, f) for f in finding.__struct_fields__}, "name": name})
