"""The loss: root of ``backward``, unscaled, with what is known the moment a backward pass begins."""

import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torchvitals.hooks import gradients

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer


class Losses:
    """Listens to backward passes and to the loss scaler."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self._unscaled: tuple[weakref.ref[torch.Tensor], torch.Tensor] | None = None
        self._began = 0.0
        self._calls_before = 0

    def backward_begins(self, root: Any) -> None:
        """``backward`` was called on ``root``; nothing has been freed yet."""
        began = time.perf_counter()
        observer = self._observer
        pending = observer.pending
        self._recorder.enter("backward")
        pending.backward_passes += 1
        observer.clipping.changes()
        if pending.collectives is None:
            pending.collectives = observer.collectives.total_or_none()
        observer.wrapped.backward_begins(pending)
        for watch in observer.optimizers:
            if pending.resets.get(watch.index) is not True:
                pending.resets[watch.index] = gradients.cleared(watch.tripwire)
        for watched in observer.roots:
            watched.followed()
        loss = single(root)
        observer.counted.graph_seen(loss)
        if loss is not None:
            self._take(loss)
        self._began = time.perf_counter()
        self._recorder.cost += self._began - began

    def backward_ended(self) -> None:
        """The backward pass is over."""
        self._recorder.spent["backward"] += time.perf_counter() - self._began
        for watch in self._observer.optimizers:
            watch.backward_ended()
        self._recorder.phase = "idle"

    def scaled(self, unscaled: Any, scaled: Any) -> None:
        """The loss scaler multiplied ``unscaled``: remember which root belongs to which loss."""
        if isinstance(unscaled, torch.Tensor) and isinstance(scaled, torch.Tensor):
            self._unscaled = (weakref.ref(scaled), unscaled.detach())

    def scaler_steps(self, scaler: Any, optimizer: Optimizer) -> None:
        """``scaler.step(optimizer)`` begins: note the scale, and whether the optimizer will run."""
        self._calls_before = self._observer.watch_optimizer(optimizer).calls
        scale = getattr(scaler, "_scale", None)
        if isinstance(scale, torch.Tensor):
            self._observer.pending.logged["loss_scale"] = scale.detach().clone()
        if scaler.is_enabled():  # scripts that may do without build one all the same
            self._recorder.learn(scaler=True)

    def scaler_stepped(self, optimizer: Optimizer) -> None:
        """``scaler.step(optimizer)`` has ended; the optimizer did not run when there was an overflow."""
        watch = self._observer.watch_optimizer(optimizer)
        if watch.calls == self._calls_before:
            watch.attempted(optimizer, skipped=True)

    def clipped(self, total: Any, limit: Any) -> None:
        """The job scaled its gradients down to ``limit``."""
        known = self._observer.clipping.scaled(total, limit)
        if known is not None:
            self._recorder.learn(clips=known)

    def unscaled(self, scaler: Any, optimizer: Optimizer) -> None:
        """The loss scaler took its scale off the gradients that ``optimizer`` holds."""
        watch, scale = self._observer.watch_optimizer(optimizer), getattr(scaler, "_scale", None)
        if isinstance(scale, torch.Tensor):
            self._observer.clipping.unscaled(watch.index, watch.parameters, scale)

    def values_clipped(self, limit: Any) -> None:
        """The job is about to clip each value of its gradients to ``limit``: what is left is read in any case."""
        if isinstance(limit, int | float):
            self._recorder.learn(clips_values=float(limit))
        for watch in self._observer.optimizers:
            if watch.sampled:
                self._observer.clipping.before_values(watch.index, watch.parameters)

    def _take(self, loss: torch.Tensor) -> None:
        value = loss.detach()
        if self._unscaled is not None:
            scaled, unscaled = self._unscaled
            self._unscaled = None
            if scaled() is loss:
                value = unscaled
        pending = self._observer.pending
        pending.losses.append(value)
        if value.device.type == "cpu":
            number = float(value)
            if number - number != 0.0:
                pending.nonfinite_loss = True
                self._observer.origins.of_loss(loss)


def single(root: Any) -> torch.Tensor | None:
    """The loss behind the first argument of ``backward``; ``None`` unless it is one scalar."""
    if isinstance(root, Sequence) and len(root) == 1:
        root = root[0]
    if isinstance(root, torch.Tensor) and root.numel() == 1:
        return root
    return None


def sum_of(losses: Sequence[torch.Tensor]) -> torch.Tensor:
    """The sum of scalar losses of one step, which may live on several devices."""
    total = losses[0].detach()
    for loss in losses[1:]:
        total = total + loss.detach().to(total.device)
    return total
