"""A guard at work: looks at every gradient before it is applied, undoes what must be undone, and writes it down."""

import time
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torch.optim import optimizer as optimizers
from torchvitals.hooks import identity, norms
from torchvitals.hooks.checkpoint import Buffers, Checkpoint, companions_of, size_of
from torchvitals.hooks.guard import ACTIONS, BadStep, Guard, NonFiniteStepError

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer


SCANS = 2
"""Schedules are looked for when the first checkpoints are taken: a pass over all living objects is not cheap."""


class Watched:
    """What a guard remembers of one optimizer."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = weakref.ref(optimizer)
        self.calls = 0
        self.consecutive = 0
        self.checkpoint: Checkpoint | None = None
        self.checkpoints = 0
        self.companions: list[Any] = []
        self.buffers: list[torch.Tensor] = []
        """Copies of the model's buffers after the last good step."""
        self.told: set[str] = set()


class Guarding:
    """A guard at work in one process.

    Args:
        guard: what to do.
        observer: who knows the steps, the names and the spool.
    """

    def __init__(self, guard: Guard, observer: "Observer") -> None:
        self._guard = guard
        self._observer = observer
        self._recorder = observer.recorder
        self._watched: dict[int, Watched] = {}
        self._places: tuple[tuple[int, ...], Buffers] = ((), Buffers(()))
        fuse = observer.recorder.fuse.guard
        self._look = fuse("guard", self._looked)
        self._undo = fuse("guard", self._undone)
        self._keep = fuse("guard", self._kept)
        self._say = fuse("guard", self._told)
        self._close = fuse("step", observer.after_step)
        self._remember = fuse("guard", self._remembered)
        self._recorder.learn(guard=guard.word)

    def install(self, only: list[Optimizer] | None) -> list[Any]:
        """Hook behind the monitor's own hooks, which must see the bad gradients; the handles to take off again."""
        if only is None:
            return [
                optimizers.register_optimizer_step_pre_hook(self.before),
                optimizers.register_optimizer_step_post_hook(self.after),
            ]
        found: list[Any] = []
        for optimizer in only:
            self._remember(self._watch(optimizer))
            found += [optimizer.register_step_pre_hook(self.before), optimizer.register_step_post_hook(self.after)]
        return found

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The gradients are about to be applied.

        Raises:
            NonFiniteStepError: they are not finite, and the guard is to stop, or has given up.
        """
        began = time.perf_counter()
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        bad = self._look(optimizer, closure is not None)
        watched = self._watch(optimizer)
        watched.calls += 1
        if bad is None:
            watched.consecutive = 0
            self._keep(watched, optimizer)
            self._recorder.cost += time.perf_counter() - began
            return
        watched.consecutive = bad.consecutive
        action = self._guard.action(bad) if callable(self._guard.action) else self._guard.action
        if action is not None and action not in ACTIONS:
            raise ValueError(f"the guard's function answered {action!r}; it may answer {', '.join(ACTIONS)} or None")
        given_up = bad.consecutive >= self._guard.most and action is not None
        if given_up or action == "stop":
            self._say(bad, "stop", None)
            self._close(optimizer, (), {})  # no post-hook will run: the step is written down as far as it came
            raise NonFiniteStepError(_message(bad, given_up=given_up))
        if action is None:
            self._say(bad, "apply", None)
        else:
            self._undo(bad, action, watched, optimizer)
        self._recorder.cost += time.perf_counter() - began

    def after(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """A step is over: what the buffers hold now is good."""
        began = time.perf_counter()
        watched = self._watch(optimizer)
        if not watched.consecutive:
            self._remember(watched)
        self._recorder.cost += time.perf_counter() - began

    # -- parts ------------------------------------------------------------------------------------

    def _watch(self, optimizer: Optimizer) -> Watched:
        found = self._watched.get(id(optimizer))
        if found is None or found.optimizer() is not optimizer:
            self._watched = {key: each for key, each in self._watched.items() if each.optimizer() is not None}
            found = self._watched[id(optimizer)] = Watched(optimizer)
        return found

    def _looked(self, optimizer: Optimizer, has_closure: bool) -> BadStep | None:
        watched = self._watch(optimizer)
        if not watched.calls and not watched.buffers:  # met at its first step, whose forward has been already
            self._remembered(watched)
        if has_closure:
            self._admit(
                watched, "closure", "the optimizer is given a closure: its gradients do not exist before the step"
            )
            return None
        if isinstance(getattr(optimizer, "found_inf", None), torch.Tensor):
            return None  # a fused optimizer under a scaler looks for itself, on the device
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return None
        if (why := self._uncertain()) and self._guard.action in ("skip", "rollback"):
            self._admit(watched, "ranks", why)
            return None
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        wrong = nonfinite(parameters)
        if not wrong:
            return None
        names = self._observer.naming.names_of(parameters)
        watch = self._observer.watch_optimizer(optimizer)
        ordered = self._observer.naming.in_model_order([parameters[i] for i in wrong])
        by_id = {id(p): name for p, name in zip(parameters, names, strict=True)}
        return BadStep(
            watch.step, watch.index, [by_id[id(p)] for p in ordered], len(parameters), watched.consecutive + 1
        )

    def _undone(self, bad: BadStep, action: str, watched: Watched, optimizer: Optimizer) -> None:
        """Let the optimizer find nothing to apply: what has no gradient it leaves alone, state and decay included."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        checkpoint, buffers = watched.checkpoint, self._buffers()
        if action == "rollback" and checkpoint is not None:
            if checkpoint.fits(optimizer, buffers, watched.companions):
                checkpoint.restore(optimizer, buffers, watched.companions)
                self._told(bad, "rollback", checkpoint.step)
                return
            self._admit(watched, "shapes", "the model has changed since the checkpoint: the step was skipped")
        if [b.shape for b in buffers] == [copy.shape for copy in watched.buffers]:
            _copy(watched.buffers, buffers)
        self._told(bad, "skip", None)

    def _kept(self, watched: Watched, optimizer: Optimizer) -> None:
        """The step is good: every so often copy the state it starts from."""
        due = watched.checkpoint is None or (watched.calls - 1) % self._guard.every == 0
        if not self._guard.keeps or not due or "size" in watched.told:
            return
        buffers = self._buffers()
        size = size_of(optimizer, buffers)
        if size > self._guard.largest:
            self._admit(
                watched, "size", f"a checkpoint takes {size} bytes, more than {self._guard.largest}: steps are skipped"
            )
            watched.checkpoint = None
            return
        step = self._observer.watch_optimizer(optimizer).step
        if watched.checkpoints < SCANS:
            watched.companions = companions_of(optimizer)
        watched.checkpoints += 1
        checkpoint = Checkpoint(optimizer, buffers, watched.companions, step)
        if checkpoint.finite:
            watched.checkpoint = checkpoint

    def _remembered(self, watched: Watched) -> None:
        """Running statistics take in the batch before its gradients are known to be bad: keep the last good ones."""
        if self._guard.action == "stop":
            return
        buffers = self._buffers()
        if [b.shape for b in buffers] == [copy.shape for copy in watched.buffers]:
            _copy(buffers, watched.buffers)
        else:
            watched.buffers = [buffer.detach().clone() for buffer in buffers]

    def _buffers(self) -> list[torch.Tensor]:
        modules = [model.inner for model in self._observer.naming.models]
        key = tuple(id(module) for module in modules)
        if self._places[0] != key:
            self._places = key, Buffers(modules)
        return self._places[1].now()

    def _uncertain(self) -> str:
        """Why ranks might not act alike; empty where they will."""
        parallelism = self._recorder.facts.get("distributed")
        if parallelism in (None, "ddp") or identity.place().world_size == 1:
            return ""
        if parallelism in ("fsdp1", "fsdp2"):
            return "parameters are sharded: each rank sees its own gradients only, and ranks must act alike"
        return "ranks train without DDP: their gradients may differ, and ranks must act alike"

    def _admit(self, watched: Watched, what: str, why: str) -> None:
        if what not in watched.told:
            watched.told.add(what)
            self._recorder.not_checked("guard", why)

    def _told(self, bad: BadStep, action: str, restored: int | None) -> None:
        # Other probes look at a few tensors, and at all now and then: the step's record must say it in any case.
        self._observer.pending.logged.setdefault("gradient_norm", float("nan"))
        self._recorder.event(
            "guard", action=action, at=bad.step, optimizer=bad.optimizer, parameters=bad.parameters[:20],
            nonfinite=len(bad.parameters), of=bad.of, consecutive=bad.consecutive, restored=restored,
        )  # fmt: skip


@torch.no_grad()
def nonfinite(parameters: list[torch.Tensor]) -> list[int]:
    """Positions of the parameters whose gradient holds NaN or Inf; waits for a device, once.

    A sum that is finite has only finite terms, and takes a twentieth of what ``isfinite`` does; where it is not,
    the terms themselves are looked at, since finite ones may add up to Inf.

    >>> p = torch.nn.Parameter(torch.zeros(2))
    >>> p.grad = torch.tensor([3e38, 3e38])
    >>> nonfinite([p]), p.grad.fill_(float("nan")).sum().item(), nonfinite([p])
    ([], nan, [0])
    """
    found = [norms.local(p.grad) for p in parameters if p.grad is not None]
    if not found:
        return []
    device = found[0].device
    on_device = device.type != "cpu" and all(g.numel() for g in found)
    totals = torch._foreach_norm(found, 2) if on_device else [g.sum() for g in found]  # few launches on a device
    fine = torch.isfinite(torch.stack([total.detach().to(device, torch.complex64) for total in totals]))
    if bool(fine.all()):
        return []
    doubtful = [index for index, good in enumerate(fine.tolist()) if not good]
    return [index for index in doubtful if not bool(torch.isfinite(found[index]).all())]


@torch.no_grad()
def _copy(source: list[torch.Tensor], target: list[torch.Tensor]) -> None:
    for one, other in zip(source, target, strict=True):
        other.copy_(one)


def _message(bad: BadStep, *, given_up: bool) -> str:
    which = ", ".join(bad.parameters[:3]) + (" ..." if len(bad.parameters) > 3 else "")
    told = f"the gradients of step {bad.step} are not finite ({len(bad.parameters)} of {bad.of} parameters: {which})"
    if given_up:
        return f"torchvitals guard: {told}, the {bad.consecutive}th step in a row; the weights are untouched"
    return f"torchvitals guard: {told}; the weights are untouched; why: torchvitals diagnose latest"
