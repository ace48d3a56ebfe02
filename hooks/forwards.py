"""The root module's forward: what goes in, how long it takes, and whether it trains, evaluates or serves."""

import sys
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module
from torchvitals.hooks.activations import ActivationProfile
from torchvitals.hooks.counted import COUNTED
from torchvitals.hooks.replay import Replay
from torchvitals.hooks.root_hooks import EnterHook, LeaveHook
from torchvitals.signals.records import Axis, Profile, pack_floats

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from torchvitals.hooks.observer import Observer

FREE_NUMEL = 1 << 16
"""An input this small is looked at every step: 65,536 floats reduce in about 10 µs. Larger ones when sampled."""

UNANSWERED = 64
"""Forwards without a backward pass; gradients are accumulated over fewer."""


class RootWatch:
    """Watches one root module.

    Args:
        module: whose forward is hooked; the compiled wrapper when there is one.
        prefix: path of ``module`` in the model the user knows, as ``net.`` or empty.
        observer: who knows the phase, the pending step and the spool.
    """

    __slots__ = (
        "__weakref__", "_activations", "_after", "_answered", "_arm_activations", "_axis", "_axis_sent", "_before",
        "_began", "_carried", "_carry", "_ends_unseen", "_enters", "_evaluates", "_give_up", "_leaves",
        "_look_at_batch", "_measuring", "_observer", "_recorder", "_remember", "_remember_output", "_send_activations",
        "_training", "_unheard", "awaiting_backward", "backward_follows", "compiled", "counted", "forwards", "glimpse",
        "heard", "is_counted", "module", "prefix", "replay", "training_calls",
    )  # fmt: skip

    def __init__(self, module: Module, prefix: str, observer: "Observer") -> None:
        self.module = weakref.ref(module)
        self.prefix = prefix
        self.replay = Replay(module)
        self.glimpse = self.replay.glimpse
        self.training_calls = 0
        self.awaiting_backward = False
        """A training forward whose loss nobody has called backward on yet."""
        self.backward_follows = False
        """Whether the last backward pass followed a single training forward, as is usual: no loss is given up there."""
        self.forwards = 0
        """Training forwards since then, without those whose loss was given up."""
        self.compiled = type(module).__name__ == "OptimizedModule"
        self._observer = observer
        self._recorder = observer.recorder
        self._began = 0.0
        guard = observer.recorder.fuse.guard
        self._before = guard("forward", self._before_training)
        self._after = guard("forward", self._after_training)
        self._answered = guard("requests", observer.evaluations.answered)
        self._look_at_batch = guard("batch", self._read_batch)
        self._evaluates = guard("relations", observer.relations.enter)
        self._arm_activations = guard("activations", self._install)
        self._send_activations = guard("activations", self._send)
        self._carry = guard(COUNTED, states)
        self._give_up = guard("abandoned", observer.origins.of_abandoned)
        self._remember = guard("replay", self.replay.remember)
        self._remember_output = guard("replay", self.replay.remember_output)
        self._training = False
        self._carried: dict[int, torch.UntypedStorage] = {}
        """Memory of the states that the last training forward put out, kept so that nothing else takes the place."""
        self.counted = observer.counted
        self.is_counted = False
        """Whether the forward in progress is one of a step that is only counted."""
        self._activations: ActivationProfile | None = None
        self._measuring = False
        self.heard: set[str] = set()
        """Modules that are called in a training forward, as far as it was looked into."""
        self._axis_sent: list[str] = []
        self._axis = f"module:{len(observer.roots)}"
        self._enters: RemovableHandle | None = None
        self._leaves: RemovableHandle | None = None
        """Taken off while forwards are only counted and nobody needs to know when they end: 8 µs of each."""
        self._unheard = False
        """Whether it is off, and nothing else is to be read when a forward begins."""
        self._ends_unseen = False
        """Whether that is so: one model, which returns a tensor and makes the same graph at each call."""
        self.install()

    def install(self) -> None:
        """Put the hooks on the module, unless they are there."""
        module = self.module()
        if module is not None and self._enters is None:
            self._enters = module.register_forward_pre_hook(EnterHook(self), with_kwargs=True)
            self._listen(module)

    def _listen(self, module: Module) -> None:
        if self._leaves is None:
            self._unheard = False
            self._leaves = module.register_forward_hook(LeaveHook(self), with_kwargs=True)

    @property
    def called(self) -> bool:
        """Whether the forward has ever run where a hook runs."""
        return self._began > 0.0

    def remove(self) -> None:
        """Take the hooks off the module."""
        for handle in (self._enters, self._leaves):
            if handle is not None:
                handle.remove()
        self._enters = self._leaves = None
        self._unheard = False
        if self._activations is not None:
            self._activations.remove()

    def look_again(self) -> None:
        """Something jumped in the step that ends: look at the inputs of its last forward, whatever it costs."""
        self.replay.recall()
        if self.replay.last_inputs is not None:
            self._read_ranges(tensor for tensor in tensors(self.replay.last_inputs) if tensor.grad_fn is None)

    # -- called by the hooks ----------------------------------------------------------------------

    def entered(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward begins. A root that calls itself counts once."""
        began = time.perf_counter()
        self.is_counted = False
        self._listen(module)
        # where nothing can step, answers that nobody calls backward on are requests, whoever forgot no_grad and eval
        serves = self.forwards >= UNANSWERED and not self._observer.will_train
        self._training = module.training and torch.is_grad_enabled() and not serves
        self._recorder.enter("forward" if self._training else "eval")
        if self._training:
            self._before(module, args, kwargs)
        else:
            self.counted.evaluation()
            self._evaluates(module)
        self._began = time.perf_counter()
        self._recorder.cost += self._began - began

    def left(self, _module: Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """Forward has ended."""
        now = time.perf_counter()
        took = now - self._began
        if self._training:
            self._recorder.spent["forward"] += took
            self._after(output)
        else:
            self._recorder.spent["eval"] += took
            self._answered(self, args, kwargs, output, took)
        self._recorder.phase = "idle"
        self._recorder.cost += time.perf_counter() - now

    def enter_counted(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Forward of a step that is only counted begins. Nothing here can fail, and so there is no fuse."""
        self._recorder.phase = "forward"
        if self._unheard and self.counted.quiet and not self.awaiting_backward:
            self.awaiting_backward = True
            self.forwards += 1
            glimpse = self.glimpse
            glimpse.call = args, kwargs, None
            glimpse.first_node = None
            return
        self.is_counted = True
        self._recorder.activity += 1
        self._expect_backward()
        glimpse = self.glimpse
        glimpse.call = args, kwargs, torch.default_generator.get_state() if glimpse.draws else None
        glimpse.output = glimpse.next_node = None
        glimpse.first_node = glimpse.number()
        if self._leaves is not None and self._ends_unseen:
            self._leaves.remove()
            self._leaves = None
            self._unheard = not glimpse.draws

    def leave_counted(self, output: Any) -> None:
        """It has ended, where that is noticed."""
        self.is_counted = False
        self._recorder.phase = "idle"
        if isinstance(output, torch.Tensor):
            glimpse = self.glimpse
            glimpse.output = weakref.ref(output)
            glimpse.next_node = glimpse.number()
            if self._carried:
                self._carried = {}
        else:
            self._carried = self._carry(output) or {}

    def followed(self) -> None:
        """A backward pass begins: of this forward, as is usual."""
        self.backward_follows = self.awaiting_backward and self.forwards == 1
        self.awaiting_backward = False
        self.forwards = 0

    # -- parts ------------------------------------------------------------------------------------

    def _expect_backward(self) -> None:
        if self.awaiting_backward and self.backward_follows:
            self._give_up(sys._getframe())
        self.forwards += 1
        self.awaiting_backward = True

    def _before_training(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.training_calls += 1
        self._expect_backward()
        observer = self._observer
        self._look_at_batch(args, kwargs)
        if observer.looks_inside and not self._measuring and not self.compiled:
            self._arm_activations(module)
        self._remember(module, args, kwargs)

    def _after_training(self, output: Any) -> None:
        self._carried = states(output)
        self._remember_output(output)
        alone = len(self._observer.roots) == 1
        self._ends_unseen = alone and isinstance(output, torch.Tensor) and self.glimpse.steady is True
        if self._measuring and self._activations is not None:
            began = time.perf_counter()
            inside = self._activations.seconds
            self._measuring = False
            self._activations.remove()
            self._send_activations(self._activations, output)
            self._recorder.cost += inside  # what follows ``began`` is counted by the caller
            cost = inside + time.perf_counter() - began
            self._recorder.budget.done("activations", self._recorder.step, cost)

    def _install(self, module: Module) -> None:
        if self._activations is None:  # one for the whole run: it remembers which units used to speak
            self._activations = ActivationProfile(module, self._recorder.fuse)
            if self._activations.reason:
                self._recorder.not_checked("activations", self._activations.reason)
        if not self._activations.reason:
            self._activations.install()
            self._measuring = True

    def _send(self, profile: ActivationProfile, output: Any) -> None:
        entries, values = profile.collect(output)
        if not entries:
            return
        self.heard = {self.prefix + name for name in profile.called}
        names = [self.prefix + entry for entry in entries]
        if names != self._axis_sent:
            self._axis_sent = names
            self._recorder.write(Axis(self._axis, "module", names))
        packed = {name: pack_floats(value) for name, value in values.items()}
        record = Profile(self._recorder.step, self._recorder.clock(), self._axis, packed)
        self._recorder.write(record)

    def _read_batch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        # a head that is called by itself gets what the body answered
        found = [tensor for tensor in tensors((args, kwargs)) if tensor.grad_fn is None]
        batch = next((tensor for tensor in found if tensor.dim()), None)
        if batch is not None:
            scalars = self._observer.pending.scalars
            scalars["batch_items"] = scalars.get("batch_items", 0.0) + batch.shape[0]
            self._observer.saw_batch(batch)
        sampling = self._observer.sampling
        if sampling or not self._recorder.budget.in_debt:
            self._read_ranges(tensor for tensor in found if sampling or tensor.numel() <= FREE_NUMEL)

    def _read_ranges(self, found: Iterable[torch.Tensor]) -> None:
        for tensor in found:
            if tensor.is_floating_point() and tensor.device.type == "cpu" and tensor.numel() and tensor.dim():
                if self._carried and tensor.untyped_storage().data_ptr() in self._carried:
                    continue  # the model's own state comes back: no part of the batch
                self._read_range(tensor, self._observer.pending.scalars)

    def _read_range(self, tensor: torch.Tensor, scalars: dict[str, float]) -> None:
        with torch.no_grad():
            largest = float(torch.linalg.vector_norm(tensor.detach(), float("inf")))
        if not largest <= scalars.get("input_absmax", -1.0):
            scalars["input_absmax"] = largest
        if largest - largest != 0.0:
            scalars["input_nonfinite"] = 1.0


def tensors(structure: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    """The dense tensors in nested tuples, lists and mappings, in order; other things are passed over."""
    if isinstance(structure, torch.Tensor):
        if structure.layout is torch.strided and not structure.is_meta:
            yield structure
    elif depth and isinstance(structure, tuple | list):
        for item in structure:
            yield from tensors(item, depth - 1)
    elif depth and isinstance(structure, Mapping):
        for item in structure.values():
            yield from tensors(item, depth - 1)


def states(output: Any) -> dict[int, torch.UntypedStorage]:
    """Where the small tensors of a structured output lie: a recurrent model is given some of them back."""
    if not isinstance(output, tuple | list | Mapping):
        return {}
    small = [t for t in tensors(output) if t.device.type == "cpu" and 0 < t.numel() <= FREE_NUMEL]
    return {storage.data_ptr(): storage for tensor in small if (storage := tensor.untyped_storage())}
