"""Steps that are only counted, where steps are too short to pay for a look at each.

Between two watched steps the hooks keep what a failure cannot be explained without (the call to replay, the
loss, the trip-wire norm, how long the step took and waited for data) and do nothing else. A number out of the usual
range makes the step in progress a watched one at once. Where even that costs more than such a step may, and the loss
is one whose gradient is finite wherever it is, fifteen steps of sixteen are light ones, of which the gradient is not
read.

What is done here is done in caches that the job has filled with its own: a function call costs a microsecond or
two then, an object looked at half of one, and so there are few, and those that are have slots.
"""

import math
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torchvitals.hooks.bounded_gradients import bounded
from torchvitals.hooks.graph_task import pass_counter
from torchvitals.hooks.hyperparameters import learning_rate
from torchvitals.hooks.losses import single

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer
    from torchvitals.hooks.optimizers import OptimizerWatch

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_norm = torch.linalg.vector_norm
_Tensor = torch.Tensor
COUNTED = "counted"
"""The probe's name. Where it fails every step is a watched one from then on."""
LIGHT = 15
"""Light steps in a row, of steps that cannot pay for more and have a bounded gradient: beside an MLP of 2.5 ms a light
one costs half of another, of which the norm takes a third; beside a convolutional net of 8 ms the norm takes 30 µs."""
WAITING = 1.5
"""Times the steps wished for that a look waits where a digest is due: it is a look, and two soon after each other are
one too many. Digests are as rare as looks from step 5,000 on, of which half were such pairs."""
RISE = 1.2
"""Of the loss from one step to the next: beyond it light steps ask as well whether somebody wrote to the weights."""


class CountedSteps:
    """What is felt in a counted step.

    ``left`` is the number of steps still to be counted, 0 while the step in progress is watched.
    """

    __slots__ = (
        "_before", "_bounded", "_clippings", "_highest", "_issued", "_lead", "_light", "_observer", "_pass", "_pause",
        "_pending", "_ranks", "_recorder", "_rest", "_roots", "_stepping", "_taken", "backward_passes", "clips_rarely",
        "evaluated", "left", "loss", "norm", "quiet",
    )  # fmt: skip

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
        self._pending, self._lead, self._roots = observer.pending, observer.lead, observer.roots
        self._pass = pass_counter()
        self._pause = observer.recorder.fuse.guard("validation", observer.evaluated)
        self.left = 0
        self.backward_passes = 0
        self.loss = 0.0
        """Sum of the losses of the step in progress."""
        self.norm: float | None = None
        """Of the trip-wire's gradient."""
        self.evaluated = False
        """Whether an evaluation lies between the last step and this one."""
        self._ranks = False
        """Whether other ranks hold the same weights: what they are compared by is read at each step."""
        self._clippings = 0
        """Clippings up to the last watched step."""
        self.clips_rarely = False
        """Whether that step was not clipped: one that is, as by a rank that logs, is looked at."""
        self._stepping: OptimizerWatch | None = None
        """Whose step was counted last, or is being."""
        self._bounded: bool | None = None
        """Whether all losses of the last watched step were bounded in their gradients; ``None`` where none was seen."""
        self._light = 0
        """Light steps in a row,"""
        self._rest = 0
        """and how many of them are to come."""
        self._taken = 0
        """Light steps since the last watched one."""
        self._highest = math.inf
        """What the loss of a light step must stay below."""
        self._before = math.inf
        """The loss of the step before."""
        self.quiet = 0
        """The id of the optimizer before whose next step nothing is to be done: that of a light step; 0 for none."""
        self._issued: int | None = None
        """Collectives when the first backward pass of the step in progress began."""

    @property
    def light(self) -> bool:
        """Whether the step in progress is a light one."""
        return self.quiet != 0

    def taken(self) -> int:
        """How many light steps were taken since this was last asked."""
        taken, self._taken = self._taken, 0
        return taken

    def begin(self, steps: int) -> None:
        """Only count the next ``steps``, if this job's can be understood from what is read then.

        Digests are taken at the same steps in every run, an overflow of the scaled gradients is no explosion, and
        a closure has its gradients only when the step is over. Of ranks only those are understood that each hold all
        weights and share their gradients at every step.
        """
        observer, step = self._observer, self._recorder.step
        self.clips_rarely, self._clippings = observer.clipping.count == self._clippings, observer.clipping.count
        several = sum(watch.optimizer() is not None for watch in observer.optimizers) > 1
        self._ranks = observer.digests.compared
        if COUNTED in self._recorder.fuse.blown:
            steps = 0
        if steps and (self._recorder.facts.get("scaler") or any(watch.takes_closure for watch in observer.optimizers)):
            steps = 0
        if steps and self._ranks:
            steps = 0 if several or observer.naming.sharded or not observer.leading.ranks.shared else steps
            steps = next((ahead for ahead in range(steps) if observer.ranks.due(step + ahead)), steps)
        longest = int(WAITING * steps)
        until_digest = observer.digests.steps_until_due(step, longest, several=several)
        self.left = until_digest if until_digest < longest else steps
        if self._ranks and self.left:
            observer.leading.ranks.local.remove()
        light = self.left and self._bounded and not several and not self._ranks
        self._light = LIGHT if light and self._recorder.budget.counting_unpaid else 0
        self._bounded, self.evaluated = None, False
        self._stepping = observer.leading
        self._highest = observer.leading.bounds[2]
        self._lighten(self._light)

    def _lighten(self, steps: int) -> None:
        """The next ``steps`` are light ones."""
        optimizer = self._stepping.optimizer() if steps and self._stepping is not None else None
        self.quiet = id(optimizer) if optimizer is not None else 0
        self._rest = steps if optimizer is not None else 0

    def evaluation(self) -> None:
        """The job evaluates: the step in progress is no light one, since a validation's loss is told with it."""
        self._lighten(0)

    def graph_seen(self, loss: torch.Tensor | None) -> None:
        """The backward pass of a watched step begins at ``loss``, ``None`` where that is no single number."""
        if self._bounded is not False and self._recorder.budget.counting_unpaid:
            self._bounded = bounded(loss)
        for root in self._roots:
            root.glimpse.loss_seen(loss)

    def backward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """``torch.autograd.backward`` was called; whether to count that was enough.

        ``False`` also when its loss is not finite, or cannot be read: the step is a watched one then.
        """
        if not self.left:
            return False
        light = self.quiet
        if not light and self._pass() != -1:  # reentrant checkpointing runs one for each of its segments
            return False
        loss = args[0] if args else kwargs.get("tensors")
        if loss.__class__ is not _Tensor:
            loss = loss if isinstance(loss, torch.Tensor) else single(loss)
        try:
            value = loss.item() if loss is not None and loss.is_cpu else math.nan
        except RuntimeError:  # of more than one number
            value = math.nan
        total = self.loss + value
        if total - total != 0.0 or (light and not total < self._highest):
            self._out_of_the_usual(loss)
            return False
        if light:
            if total > RISE * self._before:
                self._look_at_marks()
        elif self._ranks and self._issued is None:
            self._issued = self._observer.collectives.total_or_none()
        self.loss = total
        self.backward_passes += 1
        recorder = self._recorder
        recorder.phase = "backward"
        recorder.activity += 1
        for watched in self._roots:
            watched.followed()
        return True

    def _out_of_the_usual(self, loss: torch.Tensor | None) -> None:
        for root in self._roots:
            root.glimpse.placed_before(loss)
        self.watch_again()

    def _look_at_marks(self) -> None:
        """Has somebody written to the weights since the last step was over?"""
        watch = self._stepping
        if watch is not None and not watch.marks.as_kept() and (share := watch.marks.written()):
            self._observer.pending.logged["weights_overwritten"] = share

    def before_step(self, optimizer: Optimizer) -> bool:
        """``optimizer`` is about to step; whether to count that was enough.

        ``False`` also when its gradient or the loss is unusual, or its gradient is suddenly a sparse one.
        """
        if not self.left:
            return False
        observer, watch = self._observer, self._stepping
        if watch is None or watch.optimizer() is not optimizer:
            self._stepping = watch = observer.watches.get(id(optimizer))
            if watch is None or watch.optimizer() is not optimizer:
                return False
        self.evaluated = observer.evaluations.forwards > 0
        if self.evaluated:
            self._pause()
        if not self._usual(watch):
            return False
        self._look_at_marks()
        watch.counting = True
        return True

    def _usual(self, watch: "OptimizerWatch") -> bool:
        """Whether the gradient and the loss are what they use to be."""
        low, high, highest_loss = watch.bounds
        gradient = watch.wire.grad if watch.wire is not None else None
        if gradient is not None:
            try:
                self.norm = norm = _norm(gradient).item()
            except RuntimeError:
                return False
            if not low < norm < high:
                return False
        return self.loss < highest_loss and not (self.clips_rarely and self._observer.clipping.count != self._clippings)

    def after_step(self, optimizer: Optimizer) -> bool:
        """It has stepped; whether that step was a counted one, whose numbers wait for the next record, or beat."""
        watch = self._stepping
        if watch is None or not (self.quiet or watch.counting) or watch.optimizer() is not optimizer:
            return False
        rate, pending = optimizer.param_groups[0].get("lr"), self._pending
        if rate is not watch.rate and rate.__class__ is float:
            watch.rate = rate
            pending.logged["learning_rate"] = learning_rate(optimizer)
        logged: Mapping[str, Any] = _NOTHING
        if pending.logged:
            logged, pending.logged = pending.logged, {}
        if self.quiet:
            leads = True
            self._rest -= 1
            self._taken += 1
            if not self._rest:
                self.quiet = 0
        else:
            leads = self._lead.watch is watch
            if self._issued is not None:
                logged = {**logged, **self._of_ranks(watch, self._issued)}
            if self._light:
                self._lighten(self._light)
        watch.marks.keep_again()
        recorder, now, loss = self._recorder, time.perf_counter(), self.loss if self.backward_passes else None
        seconds = None if self.evaluated else now - watch.ended
        waited, recorder.spent["data"] = recorder.spent["data"], 0.0
        step = watch.step
        recorder.kept.append((step, recorder.clock(), loss, self.norm, seconds, waited, logged, watch.index, leads))
        self._before, self.loss, self.backward_passes = self.loss, 0.0, 0
        self.norm, self._issued, self.evaluated = None, None, False
        watch.counting, watch.ended, watch.step = False, now, step + 1
        watch.calls += 1
        watch.steps_counted += 1
        for root in self._roots:
            root.glimpse.call = None
        recorder.phase = "idle"
        if leads:
            recorder.step = step + 1
            self.left -= 1
            if not self.left:
                self._end(watch)
        return True

    def _of_ranks(self, watch: "OptimizerWatch", issued: int) -> Mapping[str, Any]:
        """What the step tells of the other ranks; ``issued`` collectives were there before its backward pass."""
        told = watch.ranks.counted(issued)
        if not told["collectives"]:
            self.left = 1  # a watched step tells whether that is by intent
        return told

    def _end(self, watch: "OptimizerWatch") -> None:
        """The next step is a watched one."""
        self._lighten(0)
        if self._ranks:
            watch.ranks.local.follow(next(iter(watch.tripwire), None))

    def watch_again(self) -> None:
        """A number out of the usual range: the step in progress is a watched one from here on."""
        pending = self._observer.pending
        self.left = 0
        self._lighten(0)
        pending.backward_passes = self.backward_passes
        if self.backward_passes:
            pending.losses.append(torch.tensor(self.loss))
        pending.collectives = self._issued
        self.backward_passes, self.loss, self.norm, self._issued = 0, 0.0, None, None
