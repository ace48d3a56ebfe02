"""Training without torch.optim: weights that change between two backward passes have made a step.

No optimizer tells when it steps, so a step is known when the next backward pass begins and a few weights are not
what they were when the last one ended; passes in between that changed nothing were micro-batches of it. What is
read is the loss, the norm of all gradients as the last pass left them, and the forward; what was done to the
gradients afterwards (clipping by hand) is not seen.

The weights are those of the modules that were called. Where there is no module they are the leaves of the loss,
which a job may also make anew at every step.
"""

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torchvitals.hooks import discovery, gradients
from torchvitals.hooks.differentiation import Differentiation
from torchvitals.hooks.loss_graph import leaves
from torchvitals.hooks.losses import single, sum_of
from torchvitals.hooks.readback import read

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

PROFILES = "weights change without a torch.optim optimizer: no parameter is looked at by itself"
RATE = "weights change without a torch.optim optimizer, and not along their gradient: a number of the job's own"
MODULES = "what is trained belongs to no torch.nn.Module: no forward can be watched, or run again"

STRAIGHT = 0.02
"""Share of a step that may lie beside the gradient: what a weight of 1 rounds off at steps of 1e-5."""


class ByHand:
    """Closes the steps of a job whose optimizer nobody knows; does nothing once there is one."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self.differentiation = Differentiation(observer)
        self._parameters: list[torch.Tensor] = []
        self._probe: list[torch.Tensor] = []
        self._copies: list[torch.Tensor] = []
        self._gradient: tuple[torch.Tensor | None, int] = None, 0
        """Of the first weight of the probe when the last pass had ended, and how often it had been written to."""
        self._direction: torch.Tensor | None = None
        """That gradient itself, a copy."""
        self._losses: list[torch.Tensor] = []
        self._scalars: dict[str, Any] = {}
        self._passes = 0
        self._step = 0
        self._closed = 0.0

    @property
    def alone(self) -> bool:
        """Whether no optimizer has been made, which will take what is pending when it steps."""
        return not self._observer.optimizers and (self._step > 0 or not self._observer.will_train)

    def begins(self) -> None:
        """A backward pass begins: if the weights have changed since the last one, that one made a step."""
        if self.alone and self._passes and self._changed(self._probe):
            self._close(self._probe)

    def ended(self, root: Any) -> None:
        """A backward pass of ``root`` has ended: keep what belongs to it, for nobody else will take it."""
        if not self.alone:
            self._forget()
            return
        if self._called_modules():
            self._find_parameters()
        elif self._observer.roots:
            self._observer.pending.take()  # gradients of something else
            return
        elif not self._parameters or not self._wrote_gradient():
            self._trains(leaves(single(root)))
        self._passed([p.grad for p in self._parameters])

    def differentiated(self, weights: Sequence[torch.Tensor], found: Sequence[torch.Tensor | None]) -> None:
        """The job asked for the gradients of a loss and was given those ``found``; they are in no ``.grad``."""
        if self._called_modules():
            self._find_parameters()
        self._trains(weights)
        self._passed(found)

    def of_parameters(self, weights: Sequence[torch.Tensor]) -> bool:
        """Whether ``weights`` may be those of the model that was called, if one was: an image is nobody's weight."""
        called = self._called_modules()
        if not called:
            return bool(weights) and not self._observer.roots
        known = [p for module in called for p in module.parameters() if p.requires_grad]
        ids, shapes = {id(p) for p in known}, {p.shape for p in known}
        return any(id(weight) in ids for weight in weights) or {weight.shape for weight in weights} == shapes

    def finish(self) -> None:
        """The job is over: the last step has nothing behind it."""
        self.differentiation.remove()
        if self.alone and self._passes and self._changed(self._probe):
            self._close(self._probe)

    # -- parts ------------------------------------------------------------------------------------

    def _called_modules(self) -> list[torch.nn.Module]:
        roots = self._observer.roots
        return [module for root in roots if root.training_calls and (module := root.module()) is not None]

    def _find_parameters(self) -> None:
        if not self._parameters:
            modules = self._called_modules()
            self._observer.adopt([discovery.unwrap(module) for module in modules])
            self._trains([p for module in modules for p in module.parameters() if p.requires_grad])

    def _trains(self, weights: Sequence[torch.Tensor]) -> None:
        """It is ``weights`` that are trained; others in the place of those before have made a step of the last pass."""
        probe = gradients.tripwire(weights) + gradients.tripwire(weights[::-1])
        if self._passes and self._changed(probe):
            self._close(probe)
        self._parameters, self._probe = list(weights), probe

    def _wrote_gradient(self) -> bool:
        """Whether the pass that has ended wrote to the gradient of a weight that is known."""
        before, version = self._gradient
        now = self._probe[0].grad if self._probe else None
        return now is not None and (now is not before or now._version != version)

    def _passed(self, found: Sequence[torch.Tensor | None]) -> None:
        """The gradients of the weights are ``found``, in their order."""
        taken = self._observer.pending.take()
        if not self._parameters:
            return
        self._passes += 1
        self._losses += taken.losses
        items = self._scalars.get("batch_items", 0.0) + taken.scalars.get("batch_items", 0.0)
        self._scalars |= {**taken.scalars, **taken.logged}
        if items:
            self._scalars["batch_items"] = items
        norm = gradients.global_norm([_numbers(g) for g in found if g is not None and _readable(g)])
        if norm is not None:
            self._scalars["gradient_norm"] = norm
            if gradients.on_host(norm) and not math.isfinite(norm) and not taken.nonfinite_loss:
                self._observer.origins.of_gradients(self._parameters)
        of_wire = next((g for p, g in zip(self._parameters, found, strict=False) if p is self._probe[0]), None)
        self._direction = None
        if of_wire is not None and _readable(of_wire):
            self._direction = _numbers(of_wire).clone()
            self._scalars["tripwire_norm"] = gradients.global_norm([self._direction])
        wire = self._probe[0].grad
        self._gradient = wire, wire._version if wire is not None else 0
        self._copies = [p.detach().clone() for p in self._probe]

    def _changed(self, probe: Sequence[torch.Tensor]) -> bool:
        pairs = zip(probe, self._copies, strict=False)
        return len(probe) != len(self._copies) or any(not torch.equal(p.detach(), copy) for p, copy in pairs)

    def _rate(self, probe: Sequence[torch.Tensor]) -> float | None:
        """The learning rate, if the step to where ``probe`` is now went down along the gradient and nowhere else."""
        before, along = self._copies[0], self._direction
        if along is None or not gradients.on_host(along) or not along.is_floating_point():
            return None
        if not probe or not before.shape == probe[0].shape == along.shape:  # weights that grow are others
            return None
        moved = before - probe[0].detach()
        rate = float((moved * along).sum() / along.square().sum())
        off = float(torch.linalg.vector_norm(moved - rate * along))
        return rate if rate > 0.0 and off <= STRAIGHT * float(torch.linalg.vector_norm(moved)) else None

    def _close(self, probe: Sequence[torch.Tensor]) -> None:
        """Write the step to ``probe`` down; the forward of the next one has run already, so there are no phases."""
        recorder = self._recorder
        now = time.perf_counter()
        values: dict[str, Any] = {**self._scalars, "backward_passes": float(self._passes)}
        if self._losses and "loss" not in values:
            values["loss"] = sum_of(self._losses)
        rate = self._rate(probe)
        if rate is not None:
            values["learning_rate"] = rate
        if self._closed:
            values["step_seconds"] = now - self._closed
        ready, arriving = read(values)
        ready |= arriving.values(wait=True) if arriving else {}
        recorder.open().step(self._step, recorder.clock(), ready)
        recorder.close_step(now - self._closed if self._closed else 0.0)
        self._closed = now
        self._step += 1
        recorder.step = self._step
        self._forget()
        if self._step == 1:
            self._begin(rate)

    def _begin(self, rate: float | None) -> None:
        """It trains: say what it is, and what is not seen of it."""
        observer = self._observer
        observer.will_train = True
        names = [model.name for model in observer.naming.models]
        self._recorder.event("attached", models=names, optimizers=[], found=bool(observer.roots))
        self._recorder.send_facts()
        observer.unseen.note("parameters", PROFILES)
        if rate is None:
            observer.unseen.note("learning_rate", RATE)
        if not observer.roots:
            observer.unseen.note("modules", MODULES)
        observer.unseen.tell()
        observer.beat.start()

    def _forget(self) -> None:
        self._losses, self._scalars, self._passes, self._copies = [], {}, 0, []


def _readable(gradient: torch.Tensor) -> bool:
    return gradient.numel() > 0 and gradient.layout is torch.strided


def _numbers(gradient: torch.Tensor) -> torch.Tensor:
    """The gradient itself; of a complex one the real and imaginary parts, which have the same norm."""
    plain = gradient.detach()
    return torch.view_as_real(plain.resolve_conj()) if plain.is_complex() else plain
