"""Naming the first operation that made a non-finite value: the failing batch runs again under inspection.

``remember`` and ``remember_output`` keep, by reference, what a forward would need to run once more;
nothing else happens until a loss or a gradient is known to be non-finite.
"""

import contextlib
import time
import warnings
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Any

import torch
from torch.autograd import backward as run_backward  # imported before anybody taps it
from torch.nn import Module
from torchvitals.hooks import loss_origin
from torchvitals.hooks.births import Birth, Births, kind_of
from torchvitals.hooks.calls import Call
from torchvitals.hooks.glimpse import Glimpse
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.refusal import refusal
from torchvitals.hooks.sandbox import sandbox
from torchvitals.hooks.source import user_frames
from torchvitals.hooks.verdict import Origin, Scene, tell

_JOB_ERRORS = (
    RuntimeError, TypeError, ValueError, AttributeError, LookupError, ArithmeticError, AssertionError, StopIteration,
    OSError,
)  # fmt: skip
"""What the job's forward may raise when it runs a second time; anything else is for the fuse."""

_replays: "weakref.WeakSet[Replay]" = weakref.WeakSet()
"""All of the process: what one model makes must not be blamed on the loss of another."""


class Replay:
    """Remembers the forwards of one root module since the last optimizer step, and runs them again on request.

    ``remember`` and ``remember_output`` cost 11 µs per forward together (2-core CPU under load, torch 2.13, one
    input and one output): ``python -m benchmarks.replay_cost``. They keep references, no copies, except 5 kB of
    generator state.

    Args:
        module: the root; a DDP wrapper is unwrapped, since a replay must not communicate.
        calls: forwards kept between two optimizer steps (micro-batches); older ones are let go.
        largest_gradient: bytes of output gradients kept per forward; logits of a language model can be
            gigabytes, and keeping their gradient would raise the job's peak memory. Beyond it the replay
            runs with a gradient of ones, and says so.
    """

    def __init__(self, module: Module, *, calls: int = 8, largest_gradient: int = 256 << 20) -> None:
        self._module = weakref.ref(_inner(module))
        self._compiled = type(module).__name__ == "OptimizedModule"
        self._calls: deque[Call] = deque(maxlen=calls)
        self._largest_gradient = largest_gradient
        self._probe: weakref.ref[torch.Tensor] | None = None
        self._probe_version = -1
        self.glimpse = Glimpse()
        """The last forward of a step that is only counted."""
        _replays.add(self)

    # -- every forward ----------------------------------------------------------------------------

    def remember(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The root is about to be called to train."""
        self.recall()
        probe = self._probe() if self._probe is not None else None
        if probe is None:
            probe = next((p for p in module.parameters() if p.requires_grad), None)
            if probe is None:
                return
            self._probe = weakref.ref(probe)
        if probe._version != self._probe_version:  # an optimizer has written to it: what came before is over
            self._probe_version = probe._version
            self._calls.clear()
        self._calls.append(Call(probe, args, kwargs, self._largest_gradient))
        self.glimpse.begins()

    def remember_output(self, output: Any) -> None:
        """The call remembered last has returned ``output``. The graph of a compiled module is left as it is."""
        if self._calls and self._compiled:
            self._calls[-1].returned_before(*_first_answer(output))
        elif self._calls:
            self._calls[-1].returned(output)
        if self._calls:
            self.glimpse.learn(self._calls[-1].surroundings)

    def recall(self) -> None:
        """Something is wrong, or watched again: make what was glimpsed a call that can be run again."""
        probe = self._probe() if self._probe is not None else None
        call = self.glimpse.take(probe, self._largest_gradient) if probe is not None else None
        if probe is not None and call is not None:
            self._probe_version = probe._version
            self._calls.append(call)

    @property
    def last_inputs(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Arguments of the last forward of this step."""
        return (self._calls[-1].args, self._calls[-1].kwargs) if self._calls else None

    def newest(self) -> tuple[Module, Call] | None:
        """The root and its last forward of this step."""
        module = self._module()
        return (module, self._calls[-1]) if self._calls and module is not None else None

    def forget(self) -> None:
        """Let go of all inputs and gradients."""
        self.glimpse.call = None
        self._calls.clear()

    # -- when something is not finite -------------------------------------------------------------

    def loss_origin(
        self, loss: torch.Tensor, limit_seconds: float = 20.0, frames: list[FrameType] | None = None
    ) -> Origin | None:
        """Where the non-finite ``loss`` comes from. Call it before its backward, which frees the graph.

        With several models (a GAN) ask one after the other; ``None`` means that it came from another one.
        ``frames`` are the job's, innermost first, when they are not those that called this.
        """
        deadline = time.monotonic() + limit_seconds
        why = "" if self._calls else "the model was not called as a whole, so its forward cannot be run again"
        for call in list(self._calls):
            if call.outputs_finite():
                continue
            birth, reason = self._inspect(call, deadline, backward=False)
            why = why or reason
            if birth is not None:
                return tell(birth, self._scene(call), phase="forward", why=reason)
        others = [other for other in _replays if other is not self and other._calls]
        if any(call.outputs_bad() for other in others for call in other._calls):
            return None
        after = max(replay._after() for replay in (self, *others))
        seen = frames or list(user_frames())
        scene = self._scene(self._calls[-1] if self._calls else None)
        origin = loss_origin.of_value(loss, scene, after=after, frames=seen, why=why)
        return origin if origin["operation"] or not others else None

    def output_origin(self, limit_seconds: float = 5.0) -> Origin | None:
        """Where non-finite outputs of the last forward come from, when no loss was ever seen of them.

        For a job that looked at its loss and stopped. ``None`` when the outputs are finite, or cannot be had.
        """
        deadline = time.monotonic() + limit_seconds
        for call in list(self._calls)[-1:]:
            birth, reason = self._inspect(call, deadline, backward=False)
            if birth is not None:
                return tell(birth, self._scene(call), phase="forward", why=reason)
        return None

    def gradient_origin(self, parameters: Iterable[torch.Tensor] = (), limit_seconds: float = 20.0) -> Origin | None:
        """Where non-finite gradients of a finite loss come from. Call it before the optimizer's step.

        Args:
            parameters: those whose gradients were looked at; ``None`` is returned if all of theirs are finite.
            limit_seconds: operations later than that run unseen.
        """
        watched = [p for p in parameters if p.grad is not None]
        spoilt = [p for p in watched if p.grad is not None and not p.grad.is_sparse and kind_of(p.grad)]
        if watched and not spoilt:
            return None
        deadline = time.monotonic() + limit_seconds
        why = "" if self._calls else "the model was not called as a whole, so its backward cannot be run again"
        for call in list(self._calls):
            if any(kind_of(gradient) for gradient in call.gradients.values()):
                # a loss that leaves rows out is finite whatever the model answered there, and its gradient is not
                birth, reason = self._inspect(call, deadline, backward=False)
                if birth is not None:
                    return tell(birth, self._scene(call), phase="forward", why=reason)
                return self._loss_backward(call)
            birth, reason = self._inspect(call, deadline, backward=True)
            why = why or reason
            if birth is not None:
                return tell(birth, self._scene(call), phase="backward" if birth.backward else "forward", why=reason)
            if call.substituted and not reason.startswith("the time"):  # with other gradients all is finite
                origin = self._loss_backward(call)
                if origin["operation"]:
                    return origin
        if spoilt and self._calls and not why and (origin := self._loss_backward(self._calls[-1], spoilt))["operation"]:
            return origin
        finite = "run again, all gradients of this rank are finite: another rank, or code after backward, made them"
        nowhere = Birth("", "nan", allowed=False, backward=True)
        origin = tell(nowhere, self._scene(), phase="backward", why=why or finite)
        return {**origin, "vanished": not why}  # a fault that does not come again is none of the code

    # -- running again ----------------------------------------------------------------------------

    def _inspect(self, call: Call, deadline: float, *, backward: bool) -> tuple[Birth | None, str]:
        """The birth behind what ``call`` returned, or behind its parameters' gradients, and what was missed."""
        module = self._module()
        why = "the model is gone" if module is None else refusal(module) or call.changed(gradients=backward)
        if module is None or why:
            return None, why
        births = Births({id(m): name for name, m in module.named_modules()}, _run.__code__, deadline, backward)
        try:
            birth = _run(module, call, births, backward=backward)
        except _JOB_ERRORS as error:
            return None, f"running the batch again failed: {type(error).__name__}: {error}"[:300]
        if births.late:
            return birth, "the time for the replay was over"
        return birth, call.substituted if backward else ""

    def _loss_backward(self, call: Call, spoilt: Sequence[torch.Tensor] = ()) -> Origin:
        gradient = next((gradient for gradient in call.gradients.values() if kind_of(gradient)), None)
        scene = self._scene(self._calls[-1])
        return loss_origin.of_gradient(scene, after=call.sequence, gradient=gradient, spoilt=spoilt)

    def _after(self) -> int:
        return max((call.sequence for call in self._calls), default=-1)

    def _scene(self, call: Call | None = None) -> Scene:
        module = self._module()
        parameters = dict(module.named_parameters()) if module is not None else {}
        return Scene(parameters, list(tensors((call.args, call.kwargs))) if call is not None else None)


_running = False


def replaying() -> bool:
    """Is a forward running on our account? Hooks of ours then have nothing to see."""
    return _running


def _run(module: Module, call: Call, births: Births, *, backward: bool) -> Birth | None:
    """Run ``call`` again under ``births``. Without backward no graph is built, so it takes little memory."""
    with _marked(), sandbox(module, call.devices()) as aliases, contextlib.ExitStack() as stack:
        args, kwargs = call.inputs()
        births.declare("batch", tensors((args, kwargs)))
        for name, alias in aliases.items():
            births.declare(f"parameter {name}", iter((alias,)))
        call.restore_generators()
        stack.enter_context(torch.set_grad_enabled(backward))
        with births, call.autocast():
            output = module(*args, **kwargs)
        if not backward:
            return births.origin_of(output)
        roots, gradients = call.roots(output)
        if roots:
            with births:
                run_backward(roots, gradients)
        reached = [alias.grad for alias in aliases.values() if alias.grad is not None]
        return births.origin_of(reached)


@contextlib.contextmanager
def _marked() -> Iterator[None]:
    global _running  # noqa: PLW0603 (one replay per process at a time: the training thread's)
    _running = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the job has seen them once
            yield
    finally:
        _running = False


def _inner(module: Module) -> Module:
    """What the job's author wrote: without DDP, which would communicate, and as it was before it was compiled."""
    while (wrapper := type(module).__name__) in ("DistributedDataParallel", "OptimizedModule"):
        module = module.module if wrapper == "DistributedDataParallel" else module._orig_mod  # type: ignore[assignment]
    return module


def _first_answer(output: Any) -> tuple[torch.Tensor | None, int]:
    """The first tensor of ``output`` and its place in the order of the forward."""
    answer = next(tensors(output), None)
    return answer, answer.grad_fn._sequence_nr() if answer is not None and answer.grad_fn is not None else -1
