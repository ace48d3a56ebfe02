"""Steps that are only counted, where steps are too short to pay for a look at each.

Between two watched steps the hooks keep what a failure cannot be explained without (the call to replay, the
loss, the trip-wire norm, how long the step took and waited for data) and do nothing else. A number out of the usual
range makes the step in progress a watched one at once. Where even that costs more than such a step may, and the loss
is one whose gradient is finite wherever it is, fifteen steps of sixteen are light ones, of which the gradient is not
read.

What is done here is done in caches that the job has filled with its own: a function call costs a microsecond or
two then, and so there are few.
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
COUNTED = "counted"
"""The probe's name. Where it fails every step is a watched one from then on."""
LIGHT = 15
"""Light steps in a row, of steps that cannot pay for more and have a bounded gradient: beside an MLP of 2.5 ms a light
one costs 42 µs and another 67, of which the norm takes 17; beside a convolutional net of 8 ms the norm takes 30."""
RISE = 1.2
"""Of the loss from one step to the next: beyond it light steps ask as well whether somebody wrote to the weights."""


class CountedSteps:
    """What is felt in a counted step.

    ``left`` is the number of steps still to be counted, 0 while the step in progress is watched.
    """

    __slots__ = (
        "_before", "_bounded", "_clippings", "_highest", "_issued", "_light", "_observer", "_pass", "_pause", "_ranks",
        "_recorder", "_rest", "_stepping", "_taken", "backward_passes", "clips_rarely", "evaluated", "left", "loss",
        "norm",
    )  # fmt: skip

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._recorder = observer.recorder
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
        self._issued: int | None = None
        """Collectives when the first backward pass of the step in progress began."""

    @property
    def light(self) -> bool:
        """Whether the step in progress is a light one."""
        return self.left > 0 and self._rest > 0

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
        self.left = observer.digests.steps_until_due(step, steps, several=several)
        if self._ranks and self.left:
            observer.leading.ranks.local.remove()
        light = self.left and self._bounded and not several and not self._ranks
        self._rest = self._light = LIGHT if light and self._recorder.budget.counting_unpaid else 0
        self._bounded = None
        self._highest = observer.leading.bounds[2]

    def graph_seen(self, loss: torch.Tensor | None) -> None:
        """The backward pass of a watched step begins at ``loss``, ``None`` where that is no single number."""
        if self._bounded is not False and self._recorder.budget.counting_unpaid:
            self._bounded = bounded(loss)

    def backward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """``torch.autograd.backward`` was called; whether to count that was enough.

        ``False`` also when its loss is not finite, or cannot be read: the step is a watched one then.
        """
        if not self.left or self._pass() != -1:  # reentrant checkpointing runs one for each of its segments
            return False
        root = args[0] if args else kwargs.get("tensors")
        loss = root if isinstance(root, torch.Tensor) else single(root)
        try:
            value = loss.item() if loss is not None and loss.is_cpu else math.nan
        except RuntimeError:  # of more than one number
            value = math.nan
        if value - value != 0.0 or (self._rest and not self.loss + value < self._highest):
            self.watch_again()
            return False
        self.loss += value
        self.backward_passes += 1
        recorder = self._recorder
        recorder.phase = "backward"
        recorder.activity += 1
        if self._ranks and self._issued is None:
            self._issued = self._observer.collectives.total_or_none()
        for watched in self._observer.roots:
            watched.followed()
        return True

    def before_step(self, optimizer: Optimizer) -> bool:
        """``optimizer`` is about to step; whether to count that was enough.

        ``False`` also when its gradient or the loss is out of the usual, or its gradient is suddenly a sparse one.
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
            self._rest = 0
        if not self._rest and not self._usual(watch):
            return False
        looks = not self._rest or self.loss > RISE * self._before
        if looks and not watch.marks.as_kept() and (share := watch.marks.written()):
            observer.pending.logged["weights_overwritten"] = share
        rate = optimizer.param_groups[0].get("lr")
        if rate is not watch.rate and rate.__class__ is float:
            watch.rate = rate
            observer.pending.logged["learning_rate"] = learning_rate(optimizer)
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
        observer, recorder, watch = self._observer, self._recorder, self._stepping
        if watch is None or not watch.counting or watch.optimizer() is not optimizer:
            return False
        logged: Mapping[str, Any] = _NOTHING
        if observer.pending.logged:
            logged, observer.pending.logged = observer.pending.logged, {}
        if self._issued is not None:
            told = watch.ranks.counted(self._issued)
            if not told["collectives"]:
                self.left = 1  # a watched step tells whether that is by intent
            logged = {**logged, **told}
        loss, leads = self.loss if self.backward_passes else None, observer.lead.watch is watch
        if self._rest:
            self._rest -= 1
            self._taken += 1
        else:
            self._rest = self._light
        watch.marks.keep_again()
        now = time.perf_counter()
        seconds = None if self.evaluated else now - watch.ended
        waited, recorder.spent["data"] = recorder.spent["data"], 0.0
        recorder.kept.append(
            (watch.step, recorder.clock(), loss, self.norm, seconds, waited, logged, watch.index, leads)
        )
        watch.counting, self._before = False, self.loss
        watch.ended = now
        watch.calls += 1
        watch.step += 1
        watch.steps_counted += 1
        self.backward_passes, self.loss, self.norm, self._issued = 0, 0.0, None, None
        for root in observer.roots:
            root.glimpse.call = None
        recorder.phase = "idle"
        if leads:
            recorder.step = watch.step
            self.left -= 1
            if self._ranks and not self.left:
                watch.ranks.local.follow(next(iter(watch.tripwire), None))
        return True

    def watch_again(self) -> None:
        """A number out of the usual range: the step in progress is a watched one from here on."""
        pending = self._observer.pending
        self.left = 0
        pending.backward_passes = self.backward_passes
        if self.backward_passes:
            pending.losses.append(torch.tensor(self.loss))
        pending.collectives = self._issued
        self.backward_passes, self.loss, self.norm, self._issued = 0, 0.0, None, None
