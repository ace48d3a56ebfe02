"""torch.compile: none of our code may be traced, and forwards are watched where they still run Python.

Inside compiled code no hook of ours runs (dynamo sees functions that do nothing, so it breaks no graph for them
and guards on nothing); what is lost thereby is said.
"""

import gc
import sys
from collections.abc import Callable, Iterable
from types import CodeType
from typing import TYPE_CHECKING, Any

from torch.nn import Module
from torch.optim import Optimizer
from torchvitals.hooks import discovery, taps
from torchvitals.hooks.activations import LeafHook, is_compiled, unseen
from torchvitals.hooks.counted import COUNTED
from torchvitals.hooks.fuse import NOBODY, Fuse, Quiet
from torchvitals.hooks.recompilations import Recompilations
from torchvitals.hooks.root_hooks import EnterHook, LeaveHook
from torchvitals.hooks.tracing import compiling, never_compile, unreal

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

WRAPPER = "OptimizedModule"
OURS: list[CodeType] = [
    compiling.__code__, unreal.__code__, EnterHook.__call__.__code__, LeaveHook.__call__.__code__,
    LeafHook.__call__.__code__,
]  # fmt: skip
"""The code of ours that a job's calls enter."""
IN_PLACE = "the model is compiled in place: hooks on it run inside its code, or not at all"
NOT_CALLED = "its forward was not called, or only inside compiled or transformed code, where no hook runs"
STEPS = "no step was seen, and something is compiled: a step inside compiled code runs no hook"


def eager_only(
    fuse: Fuse, action: Callable[..., object], counts: Callable[[Optimizer], bool], but_for: Quiet = NOBODY
) -> Callable[..., None]:
    """A hook of an optimizer: ``action``, unless ``counts`` is enough; as dynamo sees it, nothing."""
    hook = fuse.hook(COUNTED, counts, action, but_for)
    OURS.append(hook.__code__)
    return hook


class Compilation:
    """Follows the models of a job as they are compiled, and says what is lost.

    Args:
        observer: whose roots are moved to the wrapper that runs eagerly.
    """

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self.again = observer.recorder.fuse.guard("recompilations", Recompilations(observer.recorder.event).since)
        """What was compiled since this was last asked; ``None`` when the probe is gone."""
        self._listens_to: Any = None

    def install(self) -> None:
        """Keep dynamo out of our code, if the job has imported it, and hear when it compiles."""
        never_compile([*OURS, *taps.codes()])
        self._listen()

    def compiled(self, result: Any, what: Any) -> None:
        """``torch.compile`` made ``result`` of ``what``; nothing has been traced yet."""
        self.install()
        owner = getattr(what, "__self__", None)
        if isinstance(result, Module):
            self._follow(result)
        elif isinstance(owner, Module) and what.__name__ == "_call_impl":  # this is how Module.compile does it
            self._tell_of(owner)

    def _listen(self) -> None:
        """A step that compiles is no step that is only counted, nor is a forward that does one like others."""
        handler = getattr(sys.modules.get("torch._dynamo.callback"), "callback_handler", None)
        if self._listens_to is None and handler is not None and hasattr(handler, "remove_start_callback"):
            self._listens_to = handler
            handler.register_start_callback(self._compiles)

    def _compiles(self, _what: Any) -> None:
        if self._observer.counted.left:
            self._observer.counted.watch_again()
        for root in self._observer.roots:
            root.glimpse.compiles()

    def first_step(self) -> None:
        """A step is over: whose forward has not been called may have been compiled before we came."""
        silent = {id(root.module()) for root in self._observer.roots if not root.called}
        wrappers = getattr(sys.modules.get("torch._dynamo.eval_frame"), WRAPPER, None)
        if silent and wrappers is not None:
            for thing in gc.get_referrers(
                wrappers
            ):  # its instances among them; all objects would take ten times as long
                if isinstance(thing, wrappers) and id(thing._modules.get("_orig_mod")) in silent:
                    self._follow(thing)
        for root in self._observer.roots:
            module = root.module()
            if module is not None and is_compiled(module):
                self._tell_of(module)

    def ended(self) -> None:
        """The job is over, or has run for a while: say what no hook has ever seen."""
        if self._listens_to is not None and self._compiles in self._listens_to.start_callbacks:
            self._listens_to.remove_start_callback(self._compiles)
        self._listens_to = None
        trained = {id(p) for watch in self._observer.optimizers if watch.step for p in watch.parameters}
        for root in self._observer.roots:
            module = root.module()
            if module is None or root.called:
                continue
            if any(id(p) in trained for p in module.parameters()):
                self._observer.unseen.note("forward", NOT_CALLED)
        if self._observer.will_train and not self._observer.recorder.step and _has_compiled():
            self._observer.unseen.note("steps", STEPS)
            self._observer.unseen.tell()

    def follow(self, models: Iterable[discovery.Model]) -> None:
        """Watch ``models`` by their compiled wrapper where they have one."""
        for model in models:
            target = discovery.hookable(model.outer)
            if target is not model.inner:
                self._follow(target)

    def _follow(self, wrapper: Module) -> None:
        """Watch the compiled ``wrapper`` in place of the module in it, if that is watched."""
        observer, inner = self._observer, wrapper._modules.get("_orig_mod")
        roots = [root for root in observer.roots if root.module() is inner]
        for root in roots:
            root.remove()
            observer.roots.remove(root)
            observer.watch_model(wrapper)
            self._observer.unseen.note("activations", unseen(wrapper))

    def _tell_of(self, module: Module) -> None:
        """``module`` is compiled: say it if it is watched, or part of what is."""
        for root in self._observer.roots:
            watched = root.module()
            if watched is module and type(module).__name__ != WRAPPER:
                self._observer.unseen.note("forward", IN_PLACE)
            if watched is not None and any(part is module for part in watched.modules()):
                self._observer.unseen.note("activations", unseen(watched))


def _has_compiled() -> bool:
    """Whether dynamo has compiled anything in this process."""
    counters = getattr(sys.modules.get("torch._dynamo.utils"), "counters", None)
    return bool(counters and counters.get("frames"))
