"""The handle that ``attach`` returns, and what it installs."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torch.optim import optimizer as optimizers
from torchvitals.hooks import discovery, sources
from torchvitals.hooks.compilation import eager_only
from torchvitals.hooks.exits import exception_details
from torchvitals.hooks.guard import Action, Decide, Guard, of
from torchvitals.hooks.guarding import Guarding
from torchvitals.hooks.observer import Observer
from torchvitals.hooks.recorder import Recorder, numbers
from torchvitals.hooks.taps import Taps

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle


class Monitor:
    """Hooks in this process, until :meth:`detach`. Also a context manager.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with attach(model, optimizer) as monitor:  # doctest: +SKIP
    ...     model(torch.ones(4, 2)).sum().backward()
    ...     optimizer.step()
    """

    everywhere: ClassVar["Monitor | None"] = None
    """The monitor that watches every optimizer of this process, as under ``torchvitals run``: one speaks for all."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.observer = Observer(recorder)
        self._taps = Taps()
        self._handles: list[RemovableHandle] = []
        self._refused: set[str] = set()
        self._detached = False

    @property
    def run(self) -> str:
        """The id of the run this process writes into."""
        return self.recorder.open().path.parent.name

    def log(self, /, **values: Any) -> None:
        """Add numbers that cannot be seen to the step in progress: ``monitor.log(loss=loss, reward=12.5)``.

        Tensors of one element are read when the step is written, others are left out, which the report will say.
        ``loss`` replaces the one that was seen. What no step follows is written with the last one.
        """
        pending = self.observer.pending.logged
        for name, value in values.items():
            if not isinstance(value, torch.Tensor):
                pending.update(numbers({name: value}))
            elif value.numel() == 1 and not value.is_complex():
                pending[name] = value.detach()
            elif name not in self._refused:
                self._refused.add(name)
                why = f"monitor.log was given a {value.dtype} of shape {tuple(value.shape)}; log one number of it"
                self.recorder.not_checked(name, why)

    def watch(self, models: Sequence[Module], watched: Iterable[Optimizer]) -> None:
        """Watch these and nothing else."""
        self.observer.adopt([discovery.unwrap(model) for model in models])
        for model in models:
            self.observer.watch_model(discovery.hookable(model))
        for optimizer in watched:
            self.observer.watch_optimizer(optimizer)

    def install(self, *, only: Sequence[Optimizer] | None = None) -> None:
        """Put the hooks in: on ``only`` these optimizers, or on every one of the process."""
        guard = self.recorder.fuse.guard
        counted = self.observer.counted
        before = eager_only(self.recorder.fuse, guard("step", self.observer.before_step), counted.before_step, counted)
        after = eager_only(self.recorder.fuse, guard("step", self.observer.after_step), counted.after_step)
        if only is None:
            Monitor.everywhere = self
            self._handles = [
                optimizers.register_optimizer_step_pre_hook(before),
                optimizers.register_optimizer_step_post_hook(after),
            ]
        else:
            for optimizer in only:
                self._handles.append(optimizer.register_step_pre_hook(before))
                self._handles.append(optimizer.register_step_post_hook(after))
        sources.install(self._taps, self.observer, guard)
        self.observer.compilation.install()
        self.observer.exits.install()

    def protect(self, guard: Guard | None, only: list[Optimizer] | None) -> None:
        """Put ``guard`` behind our own hooks: they must see the gradients that it will not let through."""
        if guard is not None:
            self._handles += Guarding(guard, self.observer).install(only)

    def tap(self, owner: Any, attribute: str, after: Any) -> None:
        """Run ``after`` behind every call of ``owner.attribute``, under the fuse."""
        self._taps.wrap(owner, attribute, None, self.recorder.fuse.guard("discovery", after))

    def detach(self, *, failed: bool = False) -> None:
        """Remove every hook and tap and close the spool; the model is as it was.

        ``failed`` says that the job was broken off, which the record of its end will tell.
        """
        if self._detached:
            return
        self._detached = True
        if self in _attached:
            _attached.remove(self)
        if Monitor.everywhere is self:
            Monitor.everywhere = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._taps.remove()
        if self.observer.first_step_over is not None:
            self.observer.first_step_over()
        self.observer.exits.remove()
        self.observer.detach()
        self.observer.close()
        self.recorder.event("detached")
        # Whoever reads must not wait for this process, nor take its silence for a death.
        self.recorder.event("exit", code=int(failed))
        self.recorder.close()

    def is_outlived(self, models: Sequence[Module], watched: Sequence[Optimizer]) -> bool:
        """Whether a new monitor of these takes over: nothing of ours lives on, or it is the same training."""
        roots = [root.module() for root in self.observer.roots]
        optimizers = [watch.optimizer() for watch in self.observer.optimizers]
        if all(thing is None for thing in (*roots, *optimizers)):
            return True
        if optimizers or watched:  # two trainings may well share a teacher
            return any(one is other for one in optimizers for other in watched)
        return any(one is discovery.hookable(other) for one in roots for other in models)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = isinstance(error, Exception)
        if isinstance(error, Exception):
            self.recorder.event("exception", **exception_details(error, trace))
        self.detach(failed=failed)


_attached: list[Monitor] = []
"""The monitors that ``attach`` made and nobody has detached."""


class Guest(Monitor):
    """What ``attach`` returns where the whole process is watched already: it adds to that run and ends nothing.

    Args:
        host: the monitor of the process.
    """

    def __init__(self, host: Monitor) -> None:
        self.recorder, self.observer = host.recorder, host.observer
        self._refused: set[str] = set()

    def detach(self, *, failed: bool = False) -> None:
        """The process goes on being watched; how it ends, its own monitor will tell."""

    def __exit__(self, *_error: object) -> None:
        """An exception is told when nobody has caught it."""


def attach(
    model: Module | Sequence[Module] | Mapping[str, Module],
    optimizer: Optimizer | Sequence[Optimizer] | None = None,
    *,
    directory: str | Path | None = None,
    overhead: float = 0.01,
    guard: Guard | Action | Decide | None = None,
) -> Monitor:
    """Watch ``model`` (one or several roots) and ``optimizer`` (one or several) of this process.

    Args:
        model: the module you call, wrapped or not; several for a GAN or an actor and a critic.
        optimizer: what steps it; ``None`` for inference.
        directory: where runs are written; default ``TORCHVITALS_DIR`` or ``~/.local/state/torchvitals``.
        overhead: share of step time that all hooks together may take.
        guard: what to do with a step whose gradients are not finite: ``skip``, ``stop``, ``rollback``, a function,
            or a :class:`~torchvitals.hooks.guard.Guard`; by default nothing is done to the job, ever.

    Returns:
        A handle: ``monitor.log(...)``, ``monitor.detach()``, or use it in a ``with``. Under ``torchvitals run``
        it belongs to that run, whose directory and overhead hold, so that nothing is counted twice.

    Raises:
        TypeError: ``model`` or ``optimizer`` is something else; the message says what was given.
    """
    models = _several(model, Module, "model", "a torch.nn.Module")
    watched = _several(optimizer, Optimizer, "optimizer", "a torch.optim.Optimizer") if optimizer is not None else []
    watched = [discovery.real_optimizer(each) for each in watched]
    if Monitor.everywhere is not None:
        guest = Guest(Monitor.everywhere)
        guest.watch(models, watched)
        Monitor.everywhere.protect(of(guard), watched)
        return guest
    for earlier in [each for each in _attached if each.is_outlived(models, watched)]:
        earlier.detach()  # a notebook's cell that is run again: each run has its own steps, and pays once
    recorder = Recorder(Path(directory) if directory else None, overhead=overhead, role="train" if watched else "serve")
    monitor = Monitor(recorder)
    monitor.watch(models, watched)
    monitor.install(only=watched)
    monitor.protect(of(guard), watched)
    _attached.append(monitor)
    names = [type(module).__name__ for module in models]
    recorder.event("attached", models=names, optimizers=[type(each).__name__ for each in watched])
    return monitor


def _several(given: Any, kind: type[Any], name: str, wanted: str) -> list[Any]:
    """``given`` as a list of ``kind``."""
    if isinstance(given, kind):
        return [given]
    items = list(given.values()) if isinstance(given, Mapping) else given
    if not isinstance(items, Iterable) or isinstance(items, str):
        raise TypeError(f"attach() needs {wanted} as {name}, or several; it was given {type(given).__name__}")
    items = list(items)
    wrong = next((item for item in items if not isinstance(item, kind)), None)
    if wrong is not None or not items:
        what = type(wrong).__name__ if wrong is not None else "nothing"
        raise TypeError(f"attach() needs {wanted} as {name}, or several; it was given {what}")
    return items
