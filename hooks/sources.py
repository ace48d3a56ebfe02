"""The taps: where backward passes, loss scaling, clipping, loading and new optimizers can be met."""

import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.data import dataloader
from torchvitals.hooks import graph_task
from torchvitals.hooks.graph_task import inside_backward
from torchvitals.hooks.join import JoinedSteps
from torchvitals.hooks.observer import Observer
from torchvitals.hooks.taps import Taps

Guard = Callable[[str, Callable[..., Any]], Callable[..., Any]]


def install(taps: Taps, observer: Observer, guard: Guard) -> None:
    """Wrap everything; what this torch does not have is noted in ``observer.unseen``."""
    _tap_backward(taps, observer, guard)
    observer.by_hand.differentiation.install(guard)
    _tap_scaler(taps, observer, guard)
    _tap_clipping(taps, observer, guard)
    _tap_loader(taps, observer, guard)
    _tap_groups(taps, observer, guard)
    _tap_scheduler(taps, observer, guard)
    _tap_compile(taps, observer, guard)
    observer.relations.install(taps, guard)


def _tap_backward(taps: Taps, observer: Observer, guard: Guard) -> None:
    look_at_graph = guard("relations", observer.relations.loss_seen)
    look_at_gradients = guard("relations", observer.relations.backward_ended)
    begins_by_hand, ended_by_hand = guard("by hand", observer.by_hand.begins), guard("by hand", observer.by_hand.ended)

    def begins(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nested = inside_backward()  # reentrant checkpointing runs a backward pass for each of its segments
        graph_task.entered()
        if not nested:
            begins_by_hand()
            look_at_graph(args[0] if args else kwargs.get("tensors"))
            observer.losses.backward_begins(args[0] if args else kwargs.get("tensors"))

    def ended(_result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        graph_task.left()
        if not inside_backward():
            observer.losses.backward_ended()
            look_at_gradients()
            ended_by_hand(args[0] if args else kwargs.get("tensors"))

    counted = observer.recorder.fuse.shortcut("loss", observer.counted.backward)
    # Tensor.backward looks this up at every call, and so do Lightning, Accelerate and the scalers.
    taps.wrap(torch.autograd, "backward", guard("loss", begins), guard("loss", ended), counted)


def _tap_scaler(taps: Taps, observer: Observer, guard: Guard) -> None:
    scaler_class = getattr(getattr(torch.amp, "grad_scaler", None), "GradScaler", None)
    if scaler_class is None:
        return

    def scaled(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer.losses.scaled(args[1] if len(args) > 1 else kwargs.get("outputs"), result)

    def stepping(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer.losses.scaler_steps(args[0], args[1] if len(args) > 1 else kwargs["optimizer"])

    def stepped(_result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer.losses.scaler_stepped(args[1] if len(args) > 1 else kwargs["optimizer"])

    def unscaled(_result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer.losses.unscaled(args[0], args[1] if len(args) > 1 else kwargs["optimizer"])

    taps.wrap(scaler_class, "scale", None, guard("scaler", scaled))
    taps.wrap(scaler_class, "unscale_", None, guard("scaler", unscaled))
    taps.wrap(scaler_class, "step", guard("scaler", stepping), guard("scaler", stepped))


def _tap_clipping(taps: Taps, observer: Observer, guard: Guard) -> None:
    """The two halves of ``clip_grad_norm_``, which it looks up at every call, whoever imported it by name."""
    module = sys.modules.get("torch.nn.utils.clip_grad")

    def totalled(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if observer.counted.left and not observer.counted.clips_rarely:
            return
        tensors = args[0] if args else kwargs.get("tensors")
        observer.clipping.totalled(result, tensors, args[1] if len(args) > 1 else kwargs.get("norm_type", 2.0))

    def scaled(_result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if observer.counted.left and not observer.counted.clips_rarely:
            return
        limit = args[1] if len(args) > 1 else kwargs.get("max_norm")
        observer.losses.clipped(args[2] if len(args) > 2 else kwargs.get("total_norm"), limit)

    def values(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not observer.counted.left:
            observer.losses.values_clipped(args[1] if len(args) > 1 else kwargs.get("clip_value"))

    for owner in (module, torch.nn.utils):
        taps.wrap(owner, "clip_grad_value_", guard("clipping", values))
    found = taps.wrap(module, "_get_total_norm", None, guard("clipping", totalled))
    if not (found and taps.wrap(module, "_clip_grads_with_norm_", None, guard("clipping", scaled))):
        why = "this torch has no _get_total_norm and _clip_grads_with_norm_"
        observer.unseen.note("gradient_norm_unclipped", why)


def _tap_loader(taps: Taps, observer: Observer, guard: Guard) -> None:
    iterator_class = getattr(dataloader, "_BaseDataLoaderIter", None)
    if iterator_class is None:
        return
    began = 0.0
    look_at_workers = guard("relations", observer.relations.loaded)

    def waits(args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        nonlocal began
        began = time.perf_counter()
        observer.recorder.enter("data" if getattr(args[0], "_num_yielded", 1) else "load")  # the first of an epoch

    def arrived(result: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        ended = isinstance(result, StopIteration)
        observer.loading.arrived(args[0], time.perf_counter() - began, ended=ended)
        if not ended:
            observer.digests.loaded(result, observer.recorder.step)
            look_at_workers(args[0], result)

    def made(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        observer.beat.workers.arm()  # before it forks

    taps.wrap(iterator_class, "__init__", guard("loader", made))
    taps.wrap(iterator_class, "__next__", guard("loader", waits), guard("loader", arrived))


def _tap_groups(taps: Taps, observer: Observer, guard: Guard) -> None:
    def meets(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        observer.beat.start(quietly=True)

    for module in ("torch.distributed", "torch.distributed.distributed_c10d"):
        taps.wrap(sys.modules.get(module), "init_process_group", guard("groups", meets))
    JoinedSteps(observer).install(taps, guard)


def _tap_scheduler(taps: Taps, observer: Observer, guard: Guard) -> None:
    def made(_result: Any, args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        observer.recorder.learn(scheduler=type(args[0]).__name__)

    taps.wrap(torch.optim.lr_scheduler.LRScheduler, "__init__", None, guard("scheduler", made))


def _tap_compile(taps: Taps, observer: Observer, guard: Guard) -> None:
    def compiled(result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        observer.compilation.compiled(result, args[0] if args else kwargs.get("model"))

    def scripts(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        for root in observer.roots:  # torch.jit.script compiles the hooks of a module as well, and cannot ours
            root.remove()

    def scripted(_result: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        for root in observer.roots:
            root.install()

    taps.wrap(torch, "compile", None, guard("compilation", compiled))
    # Not torch.jit.script itself, which looks for names in the frame that calls it.
    taps.wrap(torch.jit._recursive, "create_script_module", guard("scripting", scripts), guard("scripting", scripted))
