"""What is looked at once, when a training has settled: optimizers that never step, experts that are never asked."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch.nn import Module
from torch.optim import Optimizer
from torchvitals.hooks.unused_experts import unused_experts

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

SETTLED_STEP = 200
"""Step from which an optimizer that has never stepped is forgotten: critics and policies start within a hundred."""


class Settled:
    """Looks once, at the first step from ``SETTLED_STEP`` on that is not only counted.

    Args:
        observer: who knows the optimizers that step.
        made: all optimizers that were built.
        trained: the models that are trained.
        tell: takes the word and the details of a relation that is broken.
    """

    def __init__(
        self,
        observer: "Observer",
        made: Iterable[Optimizer],
        trained: Callable[[], list[Module]],
        tell: Callable[..., None],
    ) -> None:
        self._observer, self._made, self._trained, self._tell = observer, made, trained, tell
        self._over = False

    def look(self, step: int) -> None:
        """Before ``step`` is applied: gradients are there."""
        if self._over or step < SETTLED_STEP:
            return
        self._over = True
        self._look_for_idle()
        stepping = [optimizer for watch in self._observer.optimizers if (optimizer := watch.optimizer()) is not None]
        if found := unused_experts(self._trained(), stepping):
            details = {"parameter": found.first, "parameters": found.unused, "experts": found.experts}
            self._tell("unused_experts", first=0, path=found.path, **details)

    def _look_for_idle(self) -> None:
        """Tell of an optimizer that was built, whose parameters get gradients, and that has never stepped."""
        stepped = {id(p) for watch in self._observer.optimizers for p in watch.parameters}
        known = {id(optimizer) for watch in self._observer.optimizers if (optimizer := watch.optimizer())}
        for optimizer in self._made:
            if id(optimizer) in known:
                continue
            held = [p for group in optimizer.param_groups for p in group["params"]]
            waiting = [p for p in held if p.grad is not None and id(p) not in stepped]
            if waiting:
                name = self._observer.naming.names_of(waiting[:1])[0]
                self._tell("never_stepped", optimizer=type(optimizer).__name__, parameter=name, parameters=len(waiting))
                return
