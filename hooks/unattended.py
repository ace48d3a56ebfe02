"""Zero-code: what ``torchvitals run`` starts in every Python child, the moment the child has imported torch.

Nothing is known yet: no model, no optimizer. Optimizers are met at their first step, models as what was
called on the way there; a process that only answers requests is met at its first forward.
"""

import os
import weakref
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules import module as nn_module
from torch.optim import Optimizer
from torchvitals.hooks import discovery, guard
from torchvitals.hooks.monitor import Monitor
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.tracing import unreal


class RootFinder:
    """Finds the outermost modules that a job calls, by a global hook that takes itself off again.

    A global hook costs every module call about a microsecond, so it is there only from the making of an
    optimizer (or, without one, from the start) to the first step. It goes for good when the job compiles a
    module: dynamo warns of global hooks, and no compiled code shall ever be guarded on ours.
    """

    MOST_CALLS = 100_000
    """Module calls after which a process that neither steps nor ends is left alone."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._handle: Any = None
        self._inside: weakref.ref[Module] | None = None
        self._calls = 0
        self._compiles = False

    def compiled(self, result: Any, *_call: Any) -> None:
        """``torch.compile`` has answered: a module is a root, and whatever it is, global hooks must go."""
        self._compiles = True
        self.disarm()
        if isinstance(result, Module):
            self._monitor.observer.watch_model(result)

    def arm(self) -> None:
        """Look at module calls from now on."""
        if self._handle is None and not self._compiles:
            found = self._monitor.recorder.fuse.guard("discovery", self._called)
            self._handle = nn_module.register_module_forward_pre_hook(_eager_only(found))
            self._calls = 0

    def optimizer_made(self, *_call: Any) -> None:
        """The process will train: what it calls on the way to the first step are its models."""
        self._monitor.observer.will_train = True
        self.arm()

    def disarm(self) -> None:
        """Look no longer."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _called(self, module: Module, args: tuple[Any, ...]) -> None:
        self._calls += 1
        if self._calls > self.MOST_CALLS:
            self.disarm()
        observer = self._monitor.observer
        inside = self._inside() if self._inside is not None else None
        if inside is not None and any(child is module for child in inside.modules()):
            return
        self._inside = None
        if next(module.parameters(), None) is None:
            return
        target = discovery.hookable(module)
        self._inside = weakref.ref(module)
        known = any(root.module() is target for root in observer.roots)
        if not known:
            observer.watch_model(target)
            if not observer.will_train and not torch.is_grad_enabled():
                observer.adopt([discovery.unwrap(module)])
            if (
                target is module and observer.roots
            ):  # its own hooks were listed before ours was added: this call is ours to tell
                observer.roots[-1].entered(module, args, {})
        if "OptimizedModule" in discovery.unwrap(module).wrappers or not observer.will_train:
            self.disarm()


class _eager_only:  # noqa: N801 (a function with state that dynamo must see through)
    """The hook as dynamo sees it: nothing."""

    __slots__ = ("_found",)

    def __init__(self, found: Any) -> None:
        self._found = found

    def __call__(self, module: Module, args: tuple[Any, ...]) -> None:
        if not unreal():
            self._found(module, args)


def start() -> Monitor:
    """Watch this process, once."""
    return Monitor.everywhere or watch_process(Recorder(overhead=float(os.environ.get("TORCHVITALS_OVERHEAD", "0.01"))))


def watch_process(recorder: Recorder) -> Monitor:
    """Watch whatever this process trains or serves from now on, until the monitor is detached."""
    monitor = Monitor(recorder)
    finder = RootFinder(monitor)
    observer = monitor.observer
    observer.met_optimizer = recorder.fuse.guard("discovery", lambda watch: _meet(monitor, watch))
    observer.first_step_over = finder.disarm
    monitor.install()
    monitor.protect(guard.from_environment(), None)
    monitor.tap(Optimizer, "__init__", finder.optimizer_made)
    monitor.tap(Module, "eval", lambda *_: finder.arm() if not observer.optimizers and not observer.roots else None)
    monitor.tap(torch, "compile", finder.compiled)
    finder.arm()
    return monitor


def _meet(monitor: Monitor, watch: Any) -> None:
    """An optimizer is about to step for the first time: find out whose parameters it holds."""
    optimizer = watch.optimizer()
    if optimizer is None:
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    models = discovery.owners(parameters)
    monitor.observer.adopt(models)
    monitor.observer.compilation.follow(models)
    if not models:
        monitor.recorder.not_checked("modules", "no living module owns the optimizer's parameters")
    if watch.index == 0:
        names = [model.name for model in models]
        monitor.recorder.event("attached", models=names, optimizers=[type(optimizer).__name__], found=True)
