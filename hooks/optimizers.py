"""One optimizer under watch: what it is about to apply, what it applied, and the record of the step."""

import math
import time
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer
from torchvitals.hooks import gradients, readback
from torchvitals.hooks.gradient_sampling import GradientSampling
from torchvitals.hooks.hyperparameters import learning_rate
from torchvitals.hooks.process_vitals import ProcessVitals
from torchvitals.hooks.rank_readings import RankReadings
from torchvitals.hooks.shards import shard_norm
from torchvitals.hooks.suspicion import Suspicion
from torchvitals.hooks.weight_marks import WeightMarks

if TYPE_CHECKING:
    from torchvitals.hooks.forwards import RootWatch
    from torchvitals.hooks.observer import Observer


class OptimizerWatch:
    """Reads one optimizer in its step's pre- and post-hook.

    Args:
        optimizer: watched by weak reference.
        index: the optimizer's number in this process; number 0 counts the job's steps.
        observer: who knows the models, the budget and the spool.
    """

    __slots__ = (  # the attributes of a dictionary this large each lie in a cache line of their own
        "__weakref__", "_arriving", "_began", "_in_closure", "_observer", "_process", "_recorder", "_relations_after",
        "_relations_before", "_sampling", "_scalars", "_suspicion", "_suspicious", "_take_digests",
        "_take_digests_before", "_watched", "axis", "bounds", "calls", "counting", "ended", "fresh", "index",
        "looks_inside", "marks", "optimizer", "parameters", "ranks", "rate", "repeats", "sampled", "step",
        "steps_counted", "takes_closure", "tripwire", "wire",
    )  # fmt: skip

    def __init__(self, optimizer: Optimizer, index: int, observer: "Observer") -> None:
        self.optimizer = weakref.ref(optimizer)
        self.index = index
        self.step = 0
        self.calls = 0
        """How often ``step`` really ran: an attempt the loss scaler skipped does not."""
        self.fresh = True
        """Whether its optimizer has yet to make its first step."""
        self.sampled = True
        """Whether the step in progress is a sampled one."""
        self.looks_inside = True
        """Whether its activations are looked at, which costs several times as much as its gradients."""
        self.repeats = any("max_eval" in group for group in optimizer.param_groups)
        """Whether a step evaluates its closure several times, as L-BFGS does: only the first loss is the step's."""
        self.takes_closure = False
        """Whether ``step`` was given a closure that computes the gradients, as Lightning does."""
        self.parameters: list[torch.Tensor] = []
        self.tripwire: list[torch.Tensor] = []
        self.marks = WeightMarks()
        self.axis = f"parameter:{index}"
        self._observer = observer
        self._recorder = observer.recorder
        self._sampling = GradientSampling(self, observer)
        self._process = ProcessVitals(observer)
        self._suspicion = Suspicion()
        self._suspicious = False
        self.bounds = self._suspicion.bounds()
        """Of the trip-wire norm and the loss, within which a step may be only counted."""
        self.rate: float | None = None  # of the first group, in the last counted step: a schedule sets a new number
        self.wire: torch.Tensor | None = None
        """The parameter whose gradient is read in counted steps; ``None`` where reading it costs more."""
        self.counting = False
        """Whether the step being applied is only counted."""
        self.steps_counted = 0
        """Steps that were only counted since the last watched one."""
        guard = observer.recorder.fuse.guard
        self._relations_before = guard("relations", observer.relations.before)
        self._relations_after = guard("relations", observer.relations.after)
        self._take_digests = guard("digests", observer.digests.after)
        self.ranks = RankReadings(self, observer)
        self._take_digests_before = guard("digests", observer.digests.before)
        self._in_closure, self._began = False, 0.0
        self.ended = 0.0
        """When the last step ended."""
        self._watched = 0.0
        """When the last watched step ended."""
        self._scalars: dict[str, torch.Tensor | float] = {}
        self._arriving: tuple[int, float, dict[str, float], readback.Arriving] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Read the parameter list anew: groups were added, models found or moved."""
        optimizer = self.optimizer()
        if optimizer is None:
            return
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.tripwire = gradients.tripwire(self._observer.naming.in_model_order(self.parameters))
        self._sampling.renew()

    # -- the step ---------------------------------------------------------------------------------

    def before(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Pre-hook: everything that is about to be applied, unless a closure is still to compute it."""
        self.calls += 1
        self._began = time.perf_counter()
        self._recorder.enter("optimizer")
        self._scalars = {}
        self._check_parameters(optimizer)
        self._relations_before(self)
        # ``args`` begins with the optimizer itself. A closure has still to compute the gradients.
        self._in_closure = (args[1] if len(args) > 1 else kwargs.get("closure")) is not None
        self.takes_closure |= self._in_closure
        if not self._in_closure:
            self._read(optimizer, applied=False)
            self._take_digests_before(self, optimizer)
            self._scalars |= self.ranks.before_step()
        self._recorder.cost += time.perf_counter() - self._began

    def after(self, optimizer: Optimizer) -> None:
        """Post-hook: the step has been applied; write it down before the next one begins."""
        now = time.perf_counter()
        self._in_closure = False
        if not self._scalars:
            self._read(optimizer, applied=True)
        self._recorder.spent["optimizer"] += now - self._began
        self._relations_after(self)
        skipped = self._scalars.pop("found_inf", None)
        if skipped is not None and skipped.__class__ is not float and gradients.is_set(skipped):
            self._scalars = {}
            self._close(optimizer, now, skipped=True)
            return
        self._scalars |= self._sampling.finish()
        self._take_digests(self, optimizer)
        self._scalars |= self.ranks.after_step()
        self._close(optimizer, now, skipped=False)

    def backward_ended(self) -> None:
        """In a closure this is the last moment before the update: the weights are untouched."""
        if not self._in_closure or self.repeats or self._recorder.facts.get("scaler"):
            return
        norm = gradients.global_norm(gradients.gradients(self.tripwire))
        if norm is not None and gradients.on_host(norm) and not math.isfinite(float(norm)):
            self._observer.origins.of_gradients(self.parameters)

    def attempted(self, optimizer: Optimizer, *, skipped: bool) -> None:
        """Nothing was applied: the loss scaler found an overflow and ``skipped`` it, or the job gave up its loss."""
        self._scalars = {}
        self._sampling.drop()
        self._close(optimizer, time.perf_counter(), skipped=skipped)

    def flush(self) -> None:
        """Write the record that still waits for its device values; the job is ending."""
        if self._arriving is not None:
            step, seconds, values, arriving = self._arriving
            self._arriving = None
            self._recorder.open().step(step, seconds, values | arriving.values(wait=True), self.index, leads=self.leads)

    # -- parts ------------------------------------------------------------------------------------

    def _check_parameters(self, optimizer: Optimizer) -> None:
        if sum(len(group["params"]) for group in optimizer.param_groups) != len(self.parameters):
            self.refresh()

    def _read(self, optimizer: Optimizer, *, applied: bool) -> None:
        """Read the gradients; once they are ``applied`` nobody can tell how far the weights have moved."""
        scale = getattr(optimizer, "grad_scale", None)
        scale = scale if isinstance(scale, torch.Tensor) else None
        found = getattr(optimizer, "found_inf", None)
        if isinstance(found, torch.Tensor):
            self._scalars["found_inf"] = found
        self._scalars["learning_rate"] = learning_rate(optimizer)
        with torch.no_grad():
            self._read_tripwire(scale)
            self._read_norm(scale)
            self._check_finite(found)
            if self.sampled:
                self._scalars |= self._sampling.begin(scale, applied=applied)

    def _read_tripwire(self, scale: torch.Tensor | None) -> None:
        norm = gradients.global_norm(gradients.gradients(self.tripwire))
        if norm is not None:
            self._scalars["tripwire_norm"] = gradients.unscaled(norm, scale)
        if self._observer.digests.compared and (found := self.ranks.local.told(norm, self.tripwire)) is not None:
            self._scalars["local_gradient"] = found

    def _read_norm(self, scale: torch.Tensor | None) -> None:
        clipped = self._observer.clipping.told(self.index, self.parameters)
        if scale is None:  # a total of gradients that are still scaled is nobody's norm
            self._scalars |= clipped
            if "gradient_norm" in self._scalars:
                return
        budget = self._recorder.budget
        if not budget.wants("norm", self.step, self.index):
            return
        began = time.perf_counter()
        found = gradients.gradients(self.parameters)
        sharded = self._observer.naming.sharded
        norm = shard_norm(self.parameters, self._observer.naming.sharing) if sharded else gradients.global_norm(found)
        if norm is not None:
            name = "gradient_norm_shard" if sharded else "gradient_norm"
            self._scalars[name] = gradients.unscaled(norm, scale)
        wanted = sum(p.requires_grad for p in self.parameters)
        self._scalars["parameters_without_gradient"] = float(max(0, wanted - len(found)))
        self._scalars |= self._process.device_memory() or {}
        budget.done("norm", self.step, time.perf_counter() - began, self.index)

    def _check_finite(self, found_inf: torch.Tensor | None) -> None:
        """On a CPU the numbers are here already: look for the origin before the weights are touched."""
        if found_inf is not None and gradients.is_set(found_inf):
            return
        read = [self._scalars[name] for name in ("tripwire_norm", "gradient_norm") if name in self._scalars]
        here = [float(value) for value in read if not isinstance(value, torch.Tensor) or gradients.on_host(value)]
        if not all(map(math.isfinite, here)):
            self._observer.origins.of_gradients(self.parameters)

    @property
    def leads(self) -> bool:
        """Whether its steps are the job's."""
        return self._observer.lead.watch is self

    def go_on(self, optimizer: Optimizer) -> None:
        """The job has made another optimizer for the same weights: what was watched so far goes on with it."""
        self.flush()
        self.optimizer, self.fresh = weakref.ref(optimizer), True
        self.repeats, self.takes_closure = any("max_eval" in group for group in optimizer.param_groups), False
        self.refresh()

    def release(self) -> None:
        """Let go of the weights of an optimizer that is no more; the job may have let go of them as well."""
        if self.optimizer() is None:
            self.flush()
            self.parameters, self.tripwire, self.wire, self.marks = [], [], None, WeightMarks()
            self._sampling.renew()

    @property
    def roots(self) -> "list[RootWatch]":
        """The root modules of this process."""
        return self._observer.roots

    def declare(self) -> None:
        """Name the entries of the parameter axis, once, before a record refers to it."""
        self._sampling.declared()

    def _close(self, optimizer: Optimizer, now: float, *, skipped: bool) -> None:
        scalars: dict[str, torch.Tensor | float] = dict(self._scalars)
        scalars.update(self._observer.take(self))
        self.ranks.step_over(scalars)
        if skipped:
            scalars["learning_rate"] = learning_rate(optimizer)
            scalars["skipped_steps"] = 1.0
        self._add_timing(scalars, now)
        self._write(scalars)
        self._scalars = {}
        self.step += 1
        if self.leads:
            self._recorder.step = self.step
        interrupted = self._observer.evaluations.interrupted
        self._observer.step_closed(self)
        self._settle(now, interrupted=interrupted)

    def _add_timing(self, scalars: dict[str, torch.Tensor | float], now: float) -> None:
        spent = self._recorder.spent
        if self.ended and not self._observer.evaluations.forwards:
            scalars["step_seconds"] = now - self.ended
            for phase in ("data", "forward", "backward", "optimizer"):
                if spent[phase]:
                    scalars[f"{phase}_seconds"] = spent[phase]
        budget = self._recorder.budget
        scalars |= self._process.read(self.step, in_debt=budget.in_debt and not self.steps_counted)
        scalars["overhead_ratio"] = budget.ratio

    def _write(self, scalars: dict[str, torch.Tensor | float]) -> None:
        self.flush()
        values, arriving = readback.read(scalars)
        self._suspicious = self._suspicion.look(values)
        self.bounds = self._suspicion.bounds()
        if self._suspicious and "input_absmax" not in values:
            values |= self._observer.look_at_batch()
        if arriving is None:
            self._recorder.open().step(self.step, self._recorder.clock(), values, self.index, leads=self.leads)
        else:
            self._arriving = (self.step, self._recorder.clock(), values, arriving)

    def _settle(self, now: float, *, interrupted: bool) -> None:
        ended = time.perf_counter()
        recorder = self._recorder
        recorder.cost += ended - now
        if self.leads or not self.ended:
            # An evaluation in between earns nothing: what it would buy is spent on training steps.
            earned = ended - self._watched if self._watched and not interrupted else 0.0
            recorder.close_step(earned, self.steps_counted, self._observer.counted.taken())
        self.ended = self._watched = ended
        self.steps_counted = 0
        if not self._suspicious:
            self.wire = gradients.plain(self.tripwire)
            if self.leads:
                self._observer.counted.begin(recorder.budget.steps_to_count())
        self.sampled = self._suspicious or recorder.budget.wants("sample", self.step, self.index)
        self.looks_inside = self._suspicious or recorder.budget.wants("activations", self.step, self.index)
        recorder.phase = "idle"
