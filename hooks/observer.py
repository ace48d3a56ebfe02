"""All probes of one process, wired: what is watched, what is pending, and who is asked when something trips."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torchvitals.hooks import discovery, readback, supervisors
from torchvitals.hooks.beat import Heartbeat
from torchvitals.hooks.by_hand import ByHand
from torchvitals.hooks.clipping import Clipping
from torchvitals.hooks.collectives import Collectives
from torchvitals.hooks.compilation import Compilation
from torchvitals.hooks.counted import COUNTED, CountedSteps
from torchvitals.hooks.evaluations import Evaluations
from torchvitals.hooks.exits import Exits
from torchvitals.hooks.facts import describe_optimizers
from torchvitals.hooks.fingerprints import Fingerprints
from torchvitals.hooks.forwards import RootWatch
from torchvitals.hooks.lead import Lead
from torchvitals.hooks.leak_watch import LeakWatch
from torchvitals.hooks.loading import Loading
from torchvitals.hooks.losses import Losses, sum_of
from torchvitals.hooks.memory import Memory
from torchvitals.hooks.naming import Naming
from torchvitals.hooks.optimizers import OptimizerWatch
from torchvitals.hooks.origins import Origins
from torchvitals.hooks.orphans import tell_orphans
from torchvitals.hooks.pending import Pending
from torchvitals.hooks.rank_probes import RankProbes
from torchvitals.hooks.recorder import Recorder
from torchvitals.hooks.relations import Relations
from torchvitals.hooks.unseen import Unseen
from torchvitals.hooks.validation import ValidationLoss, tell_validation
from torchvitals.hooks.worker_stacks import WorkerStacks
from torchvitals.hooks.wrapped import Wrapped
from torchvitals.signals.records import Event

FACT_STEPS = (1, 10)
"""Steps after which the facts are sent again: by then clipping, scaler, autocast and loader have been met."""


class Observer:
    """Watches the optimizers and root modules of this process."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.pending = Pending()
        self.lead = Lead()
        self.roots: list[RootWatch] = []
        self.counted = CountedSteps(self)
        self.memory = Memory()
        self.clipping = Clipping()
        self.unseen = Unseen(recorder)
        self.compilation = Compilation(self)
        self.by_hand = ByHand(self)
        self.collectives = Collectives()
        self.wrapped = Wrapped(self)
        self.leaks = LeakWatch(recorder)
        self.optimizers: list[OptimizerWatch] = []
        self._began = False
        self.naming = Naming()
        self.digests = Fingerprints(recorder)
        self.will_train = False
        """Whether an optimizer has been made: a forward without gradients is an evaluation then."""
        guard = recorder.fuse.guard
        self.losses = Losses(self)
        self.origins = Origins(self)
        self.relations = Relations(self)
        self.validation = ValidationLoss()
        self.loading = Loading(self)
        self.evaluations = Evaluations(self)
        self.beat = Heartbeat(recorder, collectives=self.collectives, workers=WorkerStacks(), guard=guard)
        self.exits = Exits(self._leaving, lambda: recorder.step, ending=guard("abandoned", self.origins.of_abandoned))
        recorder.opened = guard("exits", self.exits.begin)
        self.watches: dict[int, OptimizerWatch] = {}
        """By the id of the optimizer."""
        self._hunt = guard("leaks", self.leaks.step)
        self._tell_orphans = guard("orphans", tell_orphans)
        self._tell_validation = guard("validation", tell_validation)
        self.ranks = RankProbes(recorder)
        self._close_digests = guard("digests", self.digests.close)

    # -- what is watched --------------------------------------------------------------------------

    @property
    def sampling(self) -> bool:
        """Whether the step in progress is a sampled one."""
        return self.lead.watch is not None and self.lead.watch.sampled

    @property
    def looks_inside(self) -> bool:
        """Whether the activations of the step in progress are looked at."""
        return self.lead.watch is not None and self.lead.watch.looks_inside

    def watch_optimizer(self, optimizer: Optimizer) -> OptimizerWatch:
        """The watch of ``optimizer``, made when it is met for the first time."""
        watch = self.watches.get(id(optimizer))
        if watch is not None and watch.optimizer() is optimizer:
            return watch
        if not self.optimizers:
            self.recorder.step = 0  # what was answered before, to try the model out, is forgotten
            self.evaluations.forget()
        self.will_train = True
        if earlier_one := self.lead.predecessor(optimizer, self.optimizers):
            return self._go_on(earlier_one, optimizer)
        for earlier in self.optimizers:
            earlier.release()
        watch = OptimizerWatch(optimizer, len(self.optimizers), self)
        self.lead.begins(watch)
        self.optimizers.append(watch)
        self.watches[id(optimizer)] = watch
        if self.met_optimizer is not None:
            self.met_optimizer(watch)
        return watch

    met_optimizer: Callable[[OptimizerWatch], None] | None = None
    """Zero-code: who finds the models of an optimizer met for the first time."""
    first_step_over: Callable[[], None] | None = None

    def watch_model(self, module: Module) -> None:
        """Watch the forward of ``module``, a root, once."""
        if any(root.module() is module for root in self.roots):
            return
        if isinstance(module, torch.jit._script.RecursiveScriptModule):
            self.unseen.note("forward", "torch.jit.script gives a module that takes no hooks")
            return
        self.roots.append(RootWatch(module, self.naming.prefix_of(module), self))

    def adopt(self, models: Iterable[discovery.Model]) -> None:
        """Learn the names of the parameters of ``models`` and describe them."""
        self.naming.adopt(models, self.recorder)
        for watch in self.optimizers:
            watch.refresh()

    # -- the step ---------------------------------------------------------------------------------

    def before_step(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Optimizer pre-hook."""
        if self.evaluations.forwards:
            self._tell_validation(self)
        watch = self.watches.get(id(optimizer))
        if watch is None or watch.optimizer() is not optimizer:
            watch = self.watch_optimizer(optimizer)
        if self.counted.left:
            self.counted.watch_again()
        watch.before(optimizer, args, kwargs)

    def evaluated(self) -> None:
        """A step that is only counted ends an evaluation."""
        self._tell_validation(self)
        self.evaluations.paused()

    def after_step(self, optimizer: Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """Optimizer post-hook."""
        if COUNTED not in self.recorder.fuse.blown and self.counted.after_step(optimizer):
            return
        watch = self.watches.get(id(optimizer))
        if watch is not None:
            watch.after(optimizer)

    def take(self, watch: OptimizerWatch) -> dict[str, torch.Tensor | float]:
        """What is pending for the step that ``watch`` closes."""
        pending = self.pending.take()
        scalars: dict[str, torch.Tensor | float] = dict(pending.scalars)
        if pending.losses:
            scalars["loss"] = sum_of(pending.losses[:1] if watch.repeats else pending.losses)
        scalars["backward_passes"] = float(pending.backward_passes)
        reset = pending.resets.pop(watch.index, None)
        if reset is not None and watch.calls > 1:
            scalars["gradients_reset"] = float(reset)
        if pending.collectives is not None:
            scalars["collectives"] = float(max(0, self.collectives.total() - pending.collectives))
            scalars |= self.wrapped.told(watch, pending, scalars)
        scalars.update(self.compilation.again() or {})
        scalars.update(pending.logged)
        return scalars

    def step_closed(self, watch: OptimizerWatch) -> None:
        """``watch`` has closed a step: what happens between steps happens now."""
        for root in self.roots:
            root.replay.forget()
        self.evaluations.ended()
        if self.lead.stepped(watch):
            self.recorder.step = watch.step
            self._describe_optimizers()
            self.recorder.send_facts()
        if watch.leads:
            if not self._began:
                self._began = True
                self.first_step()
            if watch.step in FACT_STEPS:
                self._tell_orphans(self)
                self.recorder.send_facts()
            self._hunt(watch.step)
            self.ranks.step(watch.step - 1)

    @property
    def leading(self) -> OptimizerWatch:
        """Whose steps are the job's; only where there has been one."""
        return self.lead.watch or self.optimizers[0]

    def _go_on(self, watch: OptimizerWatch, optimizer: Optimizer) -> OptimizerWatch:
        self.watches = {key: each for key, each in self.watches.items() if each is not watch}
        self.watches[id(optimizer)] = watch
        watch.go_on(optimizer)
        self._describe_optimizers()
        return watch

    def _describe_optimizers(self) -> None:
        living = [watch.optimizer() for watch in self.optimizers]
        self.recorder.learn(optimizers=describe_optimizers(living, self.recorder.facts.get("optimizers", [])))

    def first_step(self) -> None:
        """The job trains: describe its optimizers, start the heart beat, look for replicas."""
        self._describe_optimizers()
        self.recorder.learn(**self.relations.held())
        self.digests.begin(self.naming.models, sharded=self.naming.sharded)
        if self.digests.compared:
            self.ranks.begin(self.naming.models)
        self.compilation.first_step()
        self.unseen.tell()
        self.beat.start()
        if self.first_step_over is not None:
            self.first_step_over()

    # -- the batch --------------------------------------------------------------------------------

    def look_at_batch(self) -> dict[str, float]:
        """The range of the batch of the step that ends."""
        for root in self.roots:
            root.look_again()
        seen, self.pending.scalars = self.pending.scalars, {}
        return seen

    def abandon(self, loss: torch.Tensor) -> None:
        """The job gave up ``loss``: an attempt with nothing else, which is why the job ends or skips."""
        self.pending.losses.append(loss)
        leading = self.lead.watch
        optimizer = leading.optimizer() if leading is not None else None
        if leading is None or optimizer is None:
            self.recorder.open().step(self.recorder.step, self.recorder.clock(), {"loss": float(loss)})
        else:
            leading.attempted(optimizer, skipped=False)

    # -- forwards ---------------------------------------------------------------------------------

    def saw_batch(self, tensor: torch.Tensor) -> None:
        """The first tensor of a training batch."""
        self.relations.first_batches.trained_on(tensor)
        self.pending.add("batch_values", tensor.numel())
        if (value := self.digests.batch(tensor, self.recorder.step)) is not None:
            self.pending.scalars["batch_digest"] = value

    def _leaving(self, event: Event) -> None:
        """The process ends. One that never trained leaves a trace only when an exception ended it."""
        trains = self.recorder.writer is not None
        if trains or (event.kind == "exception" and not any(name in sys.modules for name in supervisors.LAUNCHERS)):
            self.recorder.write(event)
            if event.kind == "exit":
                self.close()
                self.recorder.close()

    # -- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what still waits and stop the threads."""
        self.by_hand.finish()
        self.compilation.ended()
        for watch in self.optimizers:
            watch.flush()
        self.ranks.close()
        self._close_digests(self.optimizers)
        self._write_last_words()
        self.evaluations.close()
        self.relations.ended()
        self.validation.close()
        self.beat.stop()
        self.memory.close()

    def _write_last_words(self) -> None:
        """What was logged behind the last step, as the last evaluation is, belongs to that step."""
        logged, self.pending.logged = self.pending.logged, {}
        leading = self.lead.watch
        if logged and leading is not None and leading.step:
            now, arriving = readback.read(logged)
            values = now | (arriving.values(wait=True) if arriving else {})
            self.recorder.open().step(leading.step - 1, self.recorder.clock(), values, leading.index, leads=True)

    def detach(self) -> None:
        """Take every hook off every module."""
        self.relations.beginnings.remove()
        self.compilation.ended()
        for watch in self.optimizers:
            watch.ranks.local.remove()
        for root in self.roots:
            root.remove()
        self.roots.clear()
