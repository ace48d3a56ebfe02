"""All probes of one process, wired: what is watched, what is pending, and who is asked when something trips."""

import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FrameType
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torchvitals.hooks import discovery
from torchvitals.hooks.abandoned import job_frames, newest_loss
from torchvitals.hooks.beat import Heartbeat
from torchvitals.hooks.collectives import Collectives
from torchvitals.hooks.exits import Exits
from torchvitals.hooks.facts import describe_loader, describe_model, describe_optimizer
from torchvitals.hooks.forwards import RootWatch
from torchvitals.hooks.leak_watch import LeakWatch
from torchvitals.hooks.memory import Memory
from torchvitals.hooks.optimizers import OptimizerWatch, sum_of
from torchvitals.hooks.pending import Pending
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.replicas import ReplicaDigests
from torchvitals.hooks.serving import Service
from torchvitals.signals.records import Event

LAUNCHERS = ("torch.distributed.run", "accelerate.commands.launch", "deepspeed.launcher.runner")
"""Modules whose process starts trainings and does not train itself."""

FACT_STEPS = (1, 10)
"""Steps after which the facts are sent again: by then clipping, scaler, autocast and loader have been met."""


class Observer:
    """Watches the optimizers and root modules of this process."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.pending = Pending()
        self.memory = Memory()
        self.collectives = Collectives()
        self.leaks = LeakWatch(recorder)
        self.optimizers: list[OptimizerWatch] = []
        self.roots: list[RootWatch] = []
        self.models: list[discovery.Model] = []
        self.digests: ReplicaDigests | None = None
        self.sharded = False
        self.interrupted = False
        """An evaluation ran since the last step."""
        self.will_train = False
        """Whether an optimizer has been made: a forward without gradients is an evaluation then."""
        guard = recorder.fuse.guard
        self.beat = Heartbeat(recorder, collectives=self.collectives)
        self.exits = Exits(self._leaving, lambda: recorder.step, ending=guard("abandoned", self.abandoned))
        self._names: dict[int, str] = {}
        self._kinds: dict[int, str] = {}
        self._order: dict[int, int] = {}
        self._services: dict[int, Service] = {}
        self._by_id: dict[int, OptimizerWatch] = {}
        self._hunt = guard("leaks", self.leaks.step)
        self._bad_step = -1
        self._origins = 0
        self._replays = 0
        self._abandoned = 0

    # -- what is watched --------------------------------------------------------------------------

    @property
    def sampling(self) -> bool:
        """Whether the step in progress is a sampled one."""
        return bool(self.optimizers) and self.optimizers[0].sampled

    @property
    def sampled_step(self) -> int:
        """The step that is being sampled."""
        return self.recorder.step

    def watch_optimizer(self, optimizer: Optimizer) -> OptimizerWatch:
        """The watch of ``optimizer``, made when it is met for the first time."""
        watch = self._by_id.get(id(optimizer))
        if watch is not None and watch.optimizer() is optimizer:
            return watch
        if not self.optimizers:
            self.recorder.step = 0  # what was answered before, to try the model out, is forgotten
            self._services.clear()
        self.will_train = True
        watch = OptimizerWatch(optimizer, len(self.optimizers), self)
        self.optimizers.append(watch)
        self._by_id[id(optimizer)] = watch
        if self.met_optimizer is not None:
            self.met_optimizer(watch)
        return watch

    met_optimizer: Callable[[OptimizerWatch], None] | None = None
    """Zero-code: who finds the models of an optimizer met for the first time."""
    first_step_over: Callable[[], None] | None = None

    def follow_compiled(self, models: Iterable[discovery.Model]) -> None:
        """Move the root hooks of modules that have been compiled since onto their compiled wrapper."""
        for model in models:
            target = discovery.hookable(model.outer)
            if target is not model.inner and any(root.module() is model.inner for root in self.roots):
                self.roots = [root for root in self.roots if root.module() is not model.inner]
                self.watch_model(target)

    def watch_model(self, module: Module) -> None:
        """Watch the forward of ``module``, a root, once."""
        if any(root.module() is module for root in self.roots):
            return
        self.roots.append(RootWatch(module, self._prefix_of(module), self))

    def adopt(self, models: Iterable[discovery.Model]) -> None:
        """Learn the names of the parameters of ``models`` and describe them."""
        self.models = discovery.outermost([*self.models, *models])
        self._names = discovery.parameter_names(self.models)
        self._kinds = discovery.parameter_kinds(self.models)
        self._order = {key: position for position, key in enumerate(self._names)}
        self.sharded = any(hasattr(p, "to_local") for model in self.models for p in model.inner.parameters())
        self.recorder.learn(
            models=[describe_model(model) for model in self.models],
            distributed=_parallelism(self.models, sharded=self.sharded),
        )
        for watch in self.optimizers:
            watch.refresh()

    def names_of(self, parameters: Sequence[torch.Tensor]) -> list[str]:
        """The names of ``parameters``, numbered where no model is known to own them."""
        return [self._names.get(id(p), f"parameter[{i}]") for i, p in enumerate(parameters)]

    def kinds_of(self, parameters: Sequence[torch.Tensor]) -> list[str]:
        """The class names of the modules that own ``parameters``; empty where unknown."""
        return [self._kinds.get(id(p), "") for p in parameters]

    def in_model_order(self, parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """``parameters`` from the input on: groups sort them by decay, the model by where they sit."""
        return sorted(parameters, key=lambda p: self._order.get(id(p), len(self._order)))

    # -- the step ---------------------------------------------------------------------------------

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Optimizer pre-hook."""
        self.watch_optimizer(optimizer).before(optimizer, args, kwargs)

    def after_step(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """Optimizer post-hook."""
        self.watch_optimizer(optimizer).after(optimizer)

    def take(self, watch: OptimizerWatch) -> dict[str, torch.Tensor | float]:
        """What is pending for the step that ``watch`` closes."""
        pending = self.pending.take()
        scalars: dict[str, torch.Tensor | float] = dict(pending.scalars)
        if pending.losses:
            scalars["loss"] = sum_of(pending.losses)
        scalars["backward_passes"] = float(pending.backward_passes)
        if pending.backward_passes and watch.step:
            scalars["gradients_reset"] = float(watch.index in pending.resets)
        self.pending.resets = pending.resets - {watch.index}
        if pending.collectives is not None:
            scalars["collectives"] = float(max(0, self.collectives.total() - pending.collectives))
        scalars.update(pending.logged)
        return scalars

    def step_closed(self, watch: OptimizerWatch) -> None:
        """``watch`` has closed a step: what happens between steps happens now."""
        self.interrupted = False
        for root in self.roots:
            root.replay.forget()
        for service in self._services.values():
            service.flush()
        self._services.clear()
        if watch.index == 0:
            if watch.step == 1:
                self.first_step()
            if watch.step in FACT_STEPS:
                self.recorder.send_facts()
            self._hunt(watch.step)

    def first_step(self) -> None:
        """The job trains: describe its optimizers, start the heart beat, look for replicas."""
        optimizers = [optimizer for watch in self.optimizers if (optimizer := watch.optimizer())]
        self.recorder.learn(optimizers=[describe_optimizer(optimizer) for optimizer in optimizers])
        self.recorder.learn(**self._unoptimized())
        self.digests = ReplicaDigests.when_replicated(self.models, sharded=self.sharded)
        self.beat.start()
        if self.first_step_over is not None:
            self.first_step_over()

    def _unoptimized(self) -> dict[str, Any]:
        """Relations between what was trained and what the optimizers hold."""
        held = {id(p) for watch in self.optimizers for p in watch.parameters}
        trained = [module for root in self.roots if root.training_calls and (module := root.module())]
        if not trained:
            return {}
        wanted = {id(p): p for module in trained for p in module.parameters() if p.requires_grad}
        self.pending.scalars["parameters_not_optimized"] = float(len(wanted.keys() - held))
        self.pending.scalars["optimizer_extra_parameters"] = float(len(held - wanted.keys()))
        return {"optimized_share": len(wanted.keys() & held) / max(1, len(wanted))}

    # -- the loss ---------------------------------------------------------------------------------

    def backward_begins(self, root: Any) -> None:
        """``backward`` was called on ``root``; nothing has been freed yet."""
        began = time.perf_counter()
        recorder = self.recorder
        recorder.phase = "backward"
        pending = self.pending
        pending.backward_passes += 1
        if pending.collectives is None:
            pending.collectives = self.collectives.total_or_none()
        for watch in self.optimizers:
            if watch.index not in pending.resets and watch.cleared():
                pending.resets.add(watch.index)
        for watched in self.roots:
            watched.backward_follows = watched.awaiting_backward
            watched.awaiting_backward = False
        loss = _single(root)
        if loss is not None:
            self._take_loss(loss)
        self._backward_began = time.perf_counter()
        recorder.cost += self._backward_began - began

    def backward_ended(self) -> None:
        """The backward pass is over."""
        self.recorder.spent["backward"] += time.perf_counter() - self._backward_began
        self.recorder.phase = "idle"

    def scaled(self, unscaled: Any, scaled: Any) -> None:
        """The loss scaler multiplied ``unscaled``: remember which root belongs to which loss."""
        if isinstance(unscaled, torch.Tensor) and isinstance(scaled, torch.Tensor):
            self._unscaled = (weakref.ref(scaled), unscaled.detach())

    _unscaled: tuple["weakref.ref[torch.Tensor]", torch.Tensor] | None = None
    _backward_began = 0.0

    def _take_loss(self, loss: torch.Tensor) -> None:
        value = loss.detach()
        if self._unscaled is not None:
            scaled, unscaled = self._unscaled
            self._unscaled = None
            if scaled() is loss:
                value = unscaled
        self.pending.losses.append(value)
        if value.device.type == "cpu" and not _finite(float(value)):
            self.pending.nonfinite_loss = True
            self._trip(lambda root: root.replay.loss_origin(loss))

    def scaler_steps(self, scaler: Any, optimizer: Optimizer) -> None:
        """``scaler.step(optimizer)`` begins: note the scale, and whether the optimizer will run."""
        watch = self.watch_optimizer(optimizer)
        self._calls_before = watch.calls
        scale = getattr(scaler, "_scale", None)
        if isinstance(scale, torch.Tensor):
            self.pending.logged["loss_scale"] = scale.detach().clone()
        self.recorder.learn(scaler=True)

    def scaler_stepped(self, optimizer: Optimizer) -> None:
        """``scaler.step(optimizer)`` has ended; the optimizer did not run when there was an overflow."""
        watch = self.watch_optimizer(optimizer)
        if watch.calls == self._calls_before:
            watch.skipped(optimizer)

    _calls_before = 0

    def clipped(self, total: Any, limit: Any, kind: Any) -> None:
        """The job clipped its gradients and computed their norm: take it, it is free."""
        if hasattr(total, "full_tensor"):  # a DTensor: the whole would need a collective
            return
        try:
            limit = float(limit)
        except (TypeError, ValueError):
            return
        self.recorder.learn(clips=limit)
        if float(kind) == 2.0:
            self.pending.clip = (total.detach() if isinstance(total, torch.Tensor) else float(total), limit)

    def batch_loaded(self, iterator: Any, seconds: float, *, ended: bool) -> None:
        """A data loader's iterator answered after ``seconds``; its first answer includes starting workers."""
        self.recorder.phase = "idle"
        if ended:
            return
        self.pending.loader_batches += 1
        if self._last_iterator is not None and self._last_iterator() is iterator:
            self.recorder.spent["data"] += seconds
            return
        self._last_iterator = weakref.ref(iterator)
        self.recorder.learn(loader=describe_loader(iterator))

    _last_iterator: "weakref.ref[Any] | None" = None

    # -- when something trips ---------------------------------------------------------------------

    MOST_ORIGINS = 3
    MOST_REPLAYS = 12

    def nonfinite_gradient(self, watch: OptimizerWatch) -> None:
        """The loss was finite and a gradient is not: ask the replay before the weights are touched."""
        if not self.pending.nonfinite_loss:
            self._trip(lambda root: root.replay.gradient_origin(watch.parameters))

    MOST_ABANDONED = 20

    def abandoned(self, frame: FrameType | None) -> None:
        """A training forward was followed by no backward: the job looked at its loss and gave it up.

        Args:
            frame: where the job is now, ``None`` when its script is over.
        """
        waiting = [root for root in self.roots if root.awaiting_backward]
        if not waiting or self._abandoned >= self.MOST_ABANDONED:
            return
        self._abandoned += 1
        for root in waiting:
            root.awaiting_backward = False
        frames = job_frames(frame)
        loss = newest_loss(frames)
        if loss is None:
            self._trip(lambda root: root.replay.output_origin() if root in waiting else None)
        elif loss.device.type == "cpu" and not _finite(float(loss.detach())):
            self._trip(lambda root: root.replay.loss_origin(loss, frames=frames) if root in waiting else None)
            self._record_abandoned(loss.detach())

    def _record_abandoned(self, loss: torch.Tensor) -> None:
        """An attempt with a loss and nothing else: it applied nothing, and it is why the job ends or skips."""
        self.pending.losses.append(loss)
        optimizer = self.optimizers[0].optimizer() if self.optimizers else None
        if optimizer is None:
            self.recorder.open().step(self.recorder.step, self.recorder.clock(), {"loss": float(loss)})
        else:
            self.optimizers[0].abandoned(optimizer)

    def _trip(self, origin: Callable[[RootWatch], Mapping[str, Any] | None]) -> None:
        """Ask the replays for the origin of the first bad step of an incident.

        What follows a bad step within a step is the same incident. A norm that overflowed from finite
        gradients has no origin, and the next step is asked again.
        """
        step = self.recorder.step
        follows = self._bad_step >= 0 and step - self._bad_step <= 1
        if follows or self._origins >= self.MOST_ORIGINS or self._replays >= self.MOST_REPLAYS:
            self._bad_step = step if follows else self._bad_step
            return
        self._replays += 1
        ask = self.recorder.fuse.guard("replay", origin)
        answers = [(root, found) for root in self.roots if root.training_calls and (found := ask(root))]
        if not answers:
            return
        # A model that is not to blame may answer that it cannot tell; one that knows comes first.
        root, found = max(answers, key=lambda answer: bool(answer[1].get("complete")))
        self._bad_step = step
        self._origins += 1
        module = root.prefix + found["module"] if found.get("module") else ""
        self.recorder.event("origin", **{**found, "module": module})

    # -- forwards ---------------------------------------------------------------------------------

    def evaluated(self, root: RootWatch, args: tuple[Any, ...], kwargs: Any, output: Any, seconds: float) -> None:
        """A root was called without gradients, or in evaluation mode: an evaluation, or a request."""
        self.interrupted = True
        if self.will_train and self.pending.loader_batches > 0:
            return
        service = self._services.get(id(root))
        if service is None:
            name = type(root.module()).__name__
            service = Service(name, self.recorder, len(self._services), trains=self.will_train)
            self._services[id(root)] = service
        service.request(args, kwargs, output, seconds)
        if not self.optimizers:
            self.recorder.step = service.requests

    def saw_batch(self, tensor: torch.Tensor) -> None:
        """The first tensor of a training batch."""
        if self.digests is not None:
            value = self.digests.batch(tensor, self.recorder.step)
            if value is not None:
                self.pending.scalars["batch_digest"] = value

    def _leaving(self, event: Event) -> None:
        """The process ends. One that never trained leaves a trace only when an exception ended it."""
        trains = self.recorder.writer is not None
        if trains or (event.kind == "exception" and not any(name in sys.modules for name in LAUNCHERS)):
            self.recorder.write(event)
            if event.kind == "exit":
                self.close()

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what still waits and stop the threads."""
        for watch in self.optimizers:
            watch.flush()
        for service in self._services.values():
            service.flush()
        self.beat.stop()
        self.memory.close()

    def detach(self) -> None:
        """Take every hook off every module."""
        for root in self.roots:
            root.remove()
        self.roots.clear()

    def _prefix_of(self, module: Module) -> str:
        """Path of ``module`` in the model that owns it, with a dot, or empty for a model itself."""
        inner = discovery.unwrap(module).inner
        for model in self.models:
            for name, candidate in model.inner.named_modules():
                if candidate is inner:
                    path = discovery.plain_name(name)
                    return f"{path}." if path else ""
        return ""


def _single(root: Any) -> torch.Tensor | None:
    """The loss behind the first argument of ``backward``; ``None`` unless it is one scalar."""
    if isinstance(root, Sequence) and len(root) == 1:
        root = root[0]
    if isinstance(root, torch.Tensor) and root.numel() == 1:
        return root
    return None


def _finite(value: float) -> bool:
    return value - value == 0.0


def _parallelism(models: Sequence[discovery.Model], *, sharded: bool) -> str | None:
    wrappers = {name for model in models for name in model.wrappers}
    if sharded:
        return "fsdp2"
    if "FullyShardedDataParallel" in wrappers:
        return "fsdp1"
    if "DistributedDataParallel" in wrappers:
        return "ddp"
    distributed = sys.modules.get("torch.distributed")
    return "manual" if distributed is not None and distributed.is_available() and distributed.is_initialized() else None
