"""The ways of watching a job whose cost is compared."""

import contextlib
import logging
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torchvitals.hooks import Monitor, attach, sources
from torchvitals.hooks.budget import MOST_COUNTED, MOST_COUNTED_SECONDS
from torchvitals.hooks.fingerprints import next_due
from torchvitals.hooks.taps import Taps

from benchmarks.overhead_jobs import Job


class Contender:
    """One way of watching a job; this one does not.

    ``active`` surrounds a timed block of watched steps and ``bare`` one of steps of the same job that nobody watches,
    both outside the clock: the model's memory is the same, whose place alone makes one job 2 % slower than its twin.
    """

    needs = ""
    """The package it comes from."""

    def __init__(self, job: Job) -> None:
        self.job = job

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        yield

    @contextlib.contextmanager
    def bare(self) -> Iterator[None]:
        hooks = [hooks for hooks in _hooks_of(self.job) if hooks]
        kept = [dict(each) for each in hooks]
        for each in hooks:
            each.clear()
        yield
        for each, before in zip(hooks, kept, strict=True):
            each.update(before)

    def step(self) -> None:
        self.job.step()

    def begun(self) -> bool:
        """Whether what it costs at the start has been paid."""
        return True

    def close(self) -> None:
        """Undo what was set up."""


def _hooks_of(job: Job) -> Iterator[dict[int, Any]]:
    """Where hooks are kept on a model, its parameters and its optimizer."""
    for module in job.model.modules():
        yield from (module._forward_pre_hooks, module._forward_hooks)
        yield from (module._backward_pre_hooks, module._backward_hooks)
    for parameter in job.model.parameters():
        yield from (parameter._backward_hooks or {}, parameter._post_accumulate_grad_hooks or {})
    yield from (job.optimizer._optimizer_step_pre_hooks, job.optimizer._optimizer_step_post_hooks)


class Torchvitals(Contender):
    """Ours with its default budget."""

    overhead = 0.01

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.monitor: Monitor = attach(job.model, job.optimizer, directory=self._directory.name, overhead=self.overhead)
        self.monitor._taps.remove()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """The taps are global: they are there in our blocks and in no other."""
        self.monitor._taps = Taps()  # those that were removed pass everything through for ever
        sources.install(self.monitor._taps, self.monitor.observer, self.monitor.recorder.fuse.guard)
        self.monitor.observer.evaluations.interrupted = True  # the time since our last block is not a step's
        yield
        self.monitor._taps.remove()

    def begun(self) -> bool:
        """Whether the allowance is spent, and digests, 16 per doubling of steps, are rarer than looks."""
        budget, step = self.monitor.recorder.budget, self.monitor.recorder.step
        if self.overhead >= 1:
            return True
        digest = next_due(step + 1)
        apart = next_due(digest + 1) - digest
        return budget.tokens <= 0.01 and apart >= min(MOST_COUNTED, MOST_COUNTED_SECONDS / budget._step_seconds)

    def close(self) -> None:
        blown = self.monitor.recorder.fuse.blown
        self.monitor.detach()
        self._directory.cleanup()
        if blown:
            raise RuntimeError(f"probes failed, so that the figures tell nothing: {', '.join(sorted(blown))}")


class EverythingEveryStep(Torchvitals):
    """Ours with a budget that never says no."""

    overhead = 1000.0


class DirectoryDeleted(Torchvitals):
    """Ours, whose directory is deleted before each block."""

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        shutil.rmtree(self._directory.name, ignore_errors=True)
        with super().active():
            yield


class DiskFull(Torchvitals):
    """Ours, where no file may grow: each write is refused as on a full disk."""

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            with super().active():
                yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Anomaly(Contender):
    """torch.autograd.set_detect_anomaly."""

    def step(self) -> None:
        with torch.autograd.detect_anomaly(check_nan=True):
            self.job.step()


class NaiveHooks(Contender):
    """What people write first: a forward hook on every leaf that reads three numbers with ``.item()``."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.seen: dict[str, tuple[float, float, float]] = {}
        for name, module in job.inner.named_modules():
            if not list(module.children()):
                module.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                self.seen[name] = (output.mean().item(), output.std().item(), output.abs().max().item())

        return hook


class WandbWatch(Contender):
    """``wandb.watch`` offline, with the loss logged at each step as its guide shows."""

    needs = "wandb"
    log = "all"
    every = 100

    def __init__(self, job: Job) -> None:
        import wandb

        super().__init__(job)
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        # Its hooks log into the one global run of the process: all contenders of wandb share it.
        settings = wandb.Settings(silent=True)
        self._run = wandb.run or wandb.init(mode="offline", dir=self._directory.name, settings=settings)
        self._run.watch(job.model, log=self.log, log_freq=self.every)

    def step(self) -> None:
        self._run.log({"loss": self.job.step().item()})

    def close(self) -> None:
        self._run.finish()
        self._directory.cleanup()


class WandbWatchEveryStep(WandbWatch):
    """``wandb.watch`` of everything at every step."""

    every = 1


class WandbGradients(WandbWatch):
    """``wandb.watch`` of gradients, now and then."""

    log = "gradients"


class WandbGradientsEveryStep(WandbGradients):
    """``wandb.watch`` of gradients at every step."""

    every = 1


class Torchmortem(Contender):
    """torchmortem's ``Autopsy`` with its defaults, called as its guide shows."""

    needs = "torchmortem"

    def __init__(self, job: Job) -> None:
        from torchmortem import Autopsy

        super().__init__(job)
        logging.getLogger("torchmortem").setLevel(logging.ERROR)
        self._autopsy = Autopsy(job.inner, optimizer=job.optimizer)
        self._autopsy.__enter__()

    def step(self) -> None:
        self._autopsy.step(loss=self.job.step().item())

    def close(self) -> None:
        self._autopsy.__exit__(None, None, None)


CONTENDERS: dict[str, type[Contender]] = {
    "nobody": Contender,
    "torchvitals": Torchvitals,
    "torchvitals, everything every step": EverythingEveryStep,
    "torchvitals, directory deleted": DirectoryDeleted,
    "torchvitals, disk full": DiskFull,
    "wandb.watch gradients, every 100": WandbGradients,
    "wandb.watch gradients, every step": WandbGradientsEveryStep,
    "wandb.watch all, every 100": WandbWatch,
    "wandb.watch all, every step": WandbWatchEveryStep,
    "torchmortem": Torchmortem,
    "set_detect_anomaly": Anomaly,
    "naive .item() hooks": NaiveHooks,
}
