"""A training without a step: `step()` was forgotten, or stands behind a condition that never holds."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from torch.nn import Module
from torch.optim import Optimizer
from torchvitals.hooks import digests
from torchvitals.hooks.discovery import plain_name

if TYPE_CHECKING:
    import torch
    from torchvitals.hooks.observer import Observer

ENOUGH = 64
"""Backward passes of a whole job; who accumulates over more micro-batches than a job has steps makes none."""


class Unstepped:
    """Counts backward passes until an optimizer steps, and looks when the job ends without one.

    Gradients are also taken for their own sake, to score samples or to explain answers, before a training or without
    any. So it is asked at the end alone, and only of a model that was called in training mode, that an optimizer
    of this process holds, and whose weights nobody has changed by hand.

    Args:
        observer: who knows which optimizers have stepped.
        optimizers: asked for all that there are.
        trained: the models that were called in training mode.
        tell: takes the word and the details of a relation that is broken.

    """

    def __init__(
        self,
        observer: "Observer",
        optimizers: Callable[[], Iterable[Optimizer]],
        trained: Callable[[], list[Module]],
        tell: Callable[..., None],
    ) -> None:
        self._observer, self._optimizers, self._trained, self._tell = observer, optimizers, trained, tell
        self._passes = 0
        self._kept: tuple[str, torch.Tensor, digests.Pending] | None = None
        """A weight with a gradient, by name, and a digest of what it was: of all of it, since a step that somebody
        takes by hand moves only the rows of an embedding that were asked for. Of a sharded one the local part."""

    def _stepped(self) -> bool:
        """Or was asked to: a loss scaler leaves steps out."""
        return any(watch.calls or watch.step for watch in self._observer.optimizers)

    def passed(self) -> None:
        """A backward pass has ended."""
        if self._stepped():
            return
        self._passes += 1
        if self._passes == 1:
            held = {
                id(p) for optimizer in self._optimizers() for group in optimizer.param_groups for p in group["params"]
            }
            named = (pair for module in self._trained() for pair in module.named_parameters())
            waiting = ((n, p) for n, p in named if id(p) in held and p.requires_grad and p.grad is not None)
            if (first := next(((n, p) for n, p in waiting if digests.digestible(p)), None)) is not None:
                self._kept = plain_name(first[0]), first[1], digests.start([first[1]])

    def ended(self) -> None:
        """The job is over."""
        if self._kept is None or self._passes < ENOUGH or self._stepped():
            return
        name, weight, before = self._kept
        for optimizer in self._optimizers():
            held = [p for group in optimizer.param_groups for p in group["params"]]
            if any(p is weight for p in held) and digests.digest([weight])[0] == before.read()[0]:
                self._tell(
                    "never_stepped",
                    optimizer=type(optimizer).__name__,
                    parameter=name,
                    parameters=len(held),
                    backward_passes=self._passes,
                )
                return
