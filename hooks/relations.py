"""Relations that hold in every sound training loop, looked at now and then: what breaks one is told as an event.

They found 18 of 20 real silent errors where statistics of loss and gradients found 2 (Jiang et al., "Training with
Confidence", OSDI 2025).
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module
from torch.optim import Optimizer
from torchvitals.hooks import loss_graph
from torchvitals.hooks.beginnings import Beginnings
from torchvitals.hooks.broadcast_targets import crossed
from torchvitals.hooks.dropout_in_evaluation import DropoutInEvaluation
from torchvitals.hooks.first_batches import FirstBatches
from torchvitals.hooks.gradients import moves
from torchvitals.hooks.hyperparameters import endless_momentum
from torchvitals.hooks.late_freezing import LateFreezing
from torchvitals.hooks.loss_sign import turned
from torchvitals.hooks.modes import Modes
from torchvitals.hooks.neglect import Neglect
from torchvitals.hooks.operation_line import nearest, operation_line
from torchvitals.hooks.orphans import NAMED
from torchvitals.hooks.resumption import Resumption
from torchvitals.hooks.settled import Settled
from torchvitals.hooks.source import user_frames
from torchvitals.hooks.unstepped import Unstepped
from torchvitals.hooks.worker_batches import WorkerBatches
from torchvitals.hooks.writes import Writes

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer
    from torchvitals.hooks.optimizers import OptimizerWatch
    from torchvitals.hooks.taps import Taps

Guard = Callable[[str, Callable[..., None]], Callable[..., None]]

_OF_A_LOSS = {
    "squashed_twice": loss_graph.squashed_twice,
    "invalid_targets": loss_graph.invalid_targets,
    "broadcast_targets": crossed,
    "no_log_probabilities": loss_graph.no_log_probabilities,
    "softmax_over_batch": loss_graph.softmax_over_batch,
}
"""Relation → what tells from the graph of a loss that it is broken."""
GRAPHS = 4
"""Losses whose graph is looked at; an adversarial pair has two or three in a step."""
STEADY = 3
"""Losses in a row that must be turned: what a policy's is weighted by may be below zero now and then."""
COMPARED_NUMEL = 1 << 16
"""Largest frozen parameter that is copied and compared: 256 kB take 20 µs."""


class Relations:
    """What this process has been seen to do; each broken relation is told once."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._made: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._graphs_left = GRAPHS
        self._told: set[str] = set()
        self._kept: tuple[torch.Tensor, torch.Tensor, int] | None = None
        self._heard: dict[int, bool] = {}
        """Optimizer → whether its parameters had gradients when the newest backward pass ended."""
        self._writes = Writes()
        self._neglect = Neglect(lambda: observer.recorder.step)
        self._unstepped = Unstepped(observer, self._all, self._trained, self._tell)
        self._began = False
        self._sign = self._turned = 0
        """Which way the newest losses were minimised, and how many of them in a row."""
        self._workers = WorkerBatches()
        self.first_batches = FirstBatches()
        self._resumption = Resumption()
        self.modes = Modes()
        guard = observer.recorder.fuse.guard
        self._look_at_freezing = guard("freezing", LateFreezing(self._frozen_late).look)
        self._settled = guard("relations", Settled(observer, self._made, self._trained, self._tell).look)
        self.ended = guard("relations", self._look_once_more)
        self.beginnings = Beginnings(self._tell, observer.recorder)
        self.dropout = DropoutInEvaluation(lambda line: self._tell("dropout_in_evaluation", line=line))

    def _note_made(self, optimizer: Optimizer) -> None:
        self._made.add(optimizer)
        self._neglect.made()
        self._observer.lead.made(optimizer)

    def install(self, taps: "Taps", guard: Guard) -> None:
        """Listen to optimizers being built; backward passes and loaders are tapped in ``sources``."""
        made = guard("relations", lambda _result, args, _kwargs: self._note_made(args[0]))
        taps.wrap(Optimizer, "__init__", None, made)
        read = guard("relations", lambda result, _args, _kwargs: self._resumption.read(result))
        begins = guard("relations", lambda args, _kwargs: self.beginnings.loads(args))
        taken = guard("relations", self._weights_loaded)
        state = guard("relations", lambda _result, _args, _kwargs: self._resumption.state_loaded())
        taps.wrap(torch, "load", None, read)
        taps.wrap(Module, "load_state_dict", begins, taken)
        taps.wrap(Optimizer, "load_state_dict", None, state)
        taps.wrap(Module, "register_parameter", None, guard("relations", self._neglect.registered))
        self.beginnings.install()

    def held(self) -> dict[str, Any]:
        """The share of what was trained that the optimizers hold; what either side lacks goes to the step."""
        observer = self._observer
        held = {id(p) for watch in observer.optimizers for p in watch.parameters}
        trained = self._trained()
        if not trained:
            return {}
        self._neglect.begin(trained)
        wanted = {id(p): p for module in trained for p in module.parameters() if p.requires_grad}
        scalars = observer.pending.scalars
        scalars["parameters_not_optimized"] = float(len(wanted.keys() - held))
        # what has a gradient takes part in training, though the forward of its module has not been seen yet
        idle = {id(p) for watch in observer.optimizers for p in watch.parameters if p.grad is None}
        asked = self._neglect.in_use() if wanted.keys() <= held else set()
        scalars["optimizer_extra_parameters"] = float(len(idle - wanted.keys() - asked))
        return {"optimized_share": len(wanted.keys() & held) / max(1, len(wanted))}

    def loss_seen(self, loss: Any) -> None:
        """``backward`` of ``loss`` is about to run: its graph is whole."""
        if self._graphs_left <= 0 or not isinstance(loss, torch.Tensor):
            return
        if loss.grad_fn is None:
            self._look_at_leaf(loss)
            return
        self._graphs_left -= 1
        for relation, look in _OF_A_LOSS.items():
            if found := look(loss, list(user_frames())):
                self._tell(relation, **found)
        self._look_at_sign(loss)
        if not self._began:
            self._began = True
            if start := loss_graph.start_of_classifier(loss):
                self._observer.recorder.event("first_loss", **start)
            elif start := loss_graph.start_of_regressor(loss):
                inputs = self._observer.pending.scalars.get("input_absmax", 0.0)
                self._observer.recorder.event("first_answers", **start, inputs=inputs)

    def _look_at_leaf(self, loss: torch.Tensor) -> None:
        """Send where ``backward`` is called on a tensor that was made of a number, from which nothing leads back."""
        if loss.requires_grad and not isinstance(loss, torch.nn.Parameter) and "leaf_loss" not in self._told:
            self._told.add("leaf_loss")
            self._observer.recorder.event("leaf_loss", line=str(nearest(list(user_frames()))))

    def _look_at_sign(self, loss: torch.Tensor) -> None:
        """Send where all that is trained is moved to make a loss larger; in a game only one side is."""
        optimizer = self._only_optimizer()
        found = turned(loss) if optimizer is not None else None
        self._turned = self._turned + 1 if found is not None and found[0] == self._sign else int(found is not None)
        self._sign = found[0] if found is not None else 0
        if optimizer is None or found is None or self._turned < STEADY or "turned_loss" in self._told:
            return
        sign, function = found
        upwards = {bool(group.get("maximize")) for group in optimizer.param_groups}
        if (sign < 0) in upwards or len(upwards) > 1:
            return
        self._told.add("turned_loss")
        line = operation_line(function, frames := list(user_frames()))
        where = "optimizer" if upwards == {True} else str(line if line.file else nearest(frames))
        self._observer.recorder.event("turned_loss", function=function, line=where, maximize=upwards == {True})

    def _all(self) -> set[Optimizer]:
        """The optimizers that were built, or have stepped."""
        watched = {optimizer for watch in self._observer.optimizers if (optimizer := watch.optimizer()) is not None}
        return watched | set(self._made)

    def _only_optimizer(self) -> Optimizer | None:
        """The one optimizer there is, if it holds all that the models that were called could train."""
        known = self._all()
        if len(known) != 1:
            return None
        (optimizer,) = known
        wanted = {id(p) for module in self._trained() for p in module.parameters() if p.requires_grad}
        return optimizer if wanted and wanted <= {id(p) for p in _held(optimizer)} else None

    def loaded(self, iterator: Any, batch: Any) -> None:
        """A data loader has answered."""
        if found := self._workers.loaded(iterator, batch):
            self._tell("cloned_workers", **found)
        if found := self.first_batches.loaded(iterator, batch):
            self._tell("first_batch_only", **found)

    def backward_ended(self) -> None:
        """Gradients have arrived: note for which optimizers, in steps that are looked at closely."""
        self._unstepped.passed()
        if not self._observer.sampling:
            return
        for watch in self._observer.optimizers:
            self._heard[watch.index] = any(map(moves, watch.tripwire))

    def enter(self, module: Module) -> None:
        """A root is about to be called without gradients, or in evaluation mode."""
        if self._observer.will_train:
            self._neglect.asked(module)
            self.dropout.enter(module)

    def evaluated(self, module: Module | None, inputs: Any, output: Any) -> None:
        """It has answered."""
        self.dropout.leave()
        self.beginnings.evaluated(module, inputs)
        self.modes.called(module, inputs, output, self._observer.pending.scalars, self._observer.recorder.step)

    def before(self, watch: "OptimizerWatch") -> None:
        """``watch`` is about to step."""
        scalars = self._observer.pending.scalars
        if self._heard.pop(watch.index, False) and not any(map(moves, watch.tripwire)):
            scalars["gradients_lost"] = 1.0
        counted = self._writes.before(watch)
        if share := watch.marks.written() if watch.marks else counted:
            scalars["weights_overwritten"] = share
        if watch.fresh and (optimizer := watch.optimizer()):
            watch.fresh = False
            self._first_step_of(optimizer)
            watch.marks.keep(watch.parameters)
        if watch.sampled:
            self._keep_frozen(watch.parameters)
            self._look_at_freezing(watch.parameters, self._trained)
        if watch.leads:
            self._look_for_neglected()
            self._settled(watch.step)

    def after(self, watch: "OptimizerWatch") -> None:
        """It has stepped."""
        self._writes.after(watch)
        watch.marks.keep(watch.parameters)
        if self._kept is not None:
            self._compare_frozen()

    def _look_once_more(self) -> None:
        """The job is over: steps that were only counted had not been looked at so closely."""
        for watch in self._observer.optimizers:
            self._look_at_freezing(watch.parameters, self._trained)
        self._unstepped.ended()
        self.beginnings.tell()

    def _weights_loaded(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        missing = getattr(result, "missing_keys", None)  # an exception has none
        if missing is not None:
            self._resumption.weights_loaded(len(missing))
            self.beginnings.loaded(result, args, kwargs)

    def _first_step_of(self, optimizer: Optimizer) -> None:
        """Relations that hold of an optimizer before it has done anything."""
        self.beginnings.steps(_held(optimizer))
        name = type(optimizer).__name__
        if endless_momentum(optimizer):
            self._tell("endless_momentum", optimizer=name)
        if self._resumption.left_behind(optimizer):
            self._tell("optimizer_state_left_behind", optimizer=name)

    def _trained(self) -> list[Module]:
        """The models that were called to be trained."""
        # `is not None`: a compiled module without `__len__` raises when it is asked whether it is true
        roots = [root for root in self._observer.roots if root.training_calls]
        return [module for root in roots if (module := root.module()) is not None]

    def _frozen_late(self, parameter: torch.Tensor, count: int, model: str) -> None:
        name = self._observer.naming.names_of([parameter])[0]
        self._tell("frozen_late", parameter=name, parameters=count, model=model)

    def _keep_frozen(self, parameters: Sequence[torch.Tensor]) -> None:
        """Keep a frozen parameter that still has a gradient, to see whether the step moves it."""
        if "frozen_moves" in self._told:
            return
        frozen = [p for p in parameters if not p.requires_grad and p.grad is not None]
        small = [p for p in frozen if 0 < p.numel() <= COMPARED_NUMEL and p.device.type == "cpu"]
        if small:
            self._kept = (small[0], small[0].detach().clone(), len(frozen))

    def _compare_frozen(self) -> None:
        if self._kept is None:
            return
        parameter, before, count = self._kept
        self._kept = None
        if not torch.equal(parameter.detach(), before):
            name = self._observer.naming.names_of([parameter])[0]
            self._tell("frozen_moves", parameter=name, parameters=count)

    def _look_for_neglected(self) -> None:
        """Count what somebody meant to train and no optimizer holds; an optimizer that was built may still begin."""
        if found := self._neglect.look(lambda: {id(p) for each in self._all() for p in _held(each)}, self._trained):
            self._observer.pending.scalars["neglected_parameters"] = float(len(found))
            self._observer.recorder.learn(left_out=found[:NAMED], **self._neglect.why_and_since())
            self._observer.recorder.send_facts()

    def _tell(self, relation: str, **details: Any) -> None:
        if relation not in self._told:
            self._told.add(relation)
            self._observer.recorder.event("relation", relation=relation, **details)


def _held(optimizer: Optimizer) -> Iterator[torch.Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
