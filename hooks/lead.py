"""Which of several optimizers takes the job's steps, so that a step has one number from the first to the last.

One that is made anew for the same weights, as they are, is the same to us. Of those that step in turn (a judge and its
generator, an actor and its critic) it is the first. Where they follow one another (a head is trained, then all of the
model; then another model) it is the one in use, and it counts on from where the one before it had come to.
"""

import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim import Optimizer

if TYPE_CHECKING:
    from torchvitals.hooks.optimizers import OptimizerWatch

PHASE = 20
"""Steps without the leading optimizer after which another leads. A critic makes 5 for each of its generator's."""


class Lead:
    """Follows whose step is the job's.

    ``watch`` is the one that leads, ``None`` before the first step.

    Args:
        phase: steps in a row that make a phase of their own.
    """

    __slots__ = ("_handed_over", "_late", "_others", "_phase", "watch")

    def __init__(self, phase: int = PHASE) -> None:
        self.watch: OptimizerWatch | None = None
        self._phase = phase
        self._handed_over = False
        """Whether another leads since the last step."""
        self._others: dict[int, int] = {}
        """Optimizer → its steps since the leading one's last."""
        self._late: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        """Those that were made when the job had made steps."""

    def made(self, optimizer: Optimizer) -> None:
        """``optimizer`` has just been made."""
        if self.watch is not None:
            self._late.add(optimizer)

    def predecessor(self, optimizer: Optimizer, watches: "Iterable[OptimizerWatch]") -> "OptimizerWatch | None":
        """Whose place ``optimizer`` takes: it holds the same weights, and was made later or the other is no more.

        Weights that were written to since are a training of their own, begun anew: rewound, pruned, another fold.
        """
        held = [p for group in optimizer.param_groups for p in group["params"]]
        for watch in watches:
            if (optimizer in self._late or _gone(watch)) and _same(held, watch.parameters):
                return None if watch.marks.written() else watch
        return None

    def begins(self, watch: "OptimizerWatch") -> None:
        """``watch`` is about to make its first step: behind a phase of the job it does not count from 0."""
        if self.watch is None:
            self.watch = watch
        elif _gone(self.watch):
            self._lead(watch)
        elif self.watch.step >= self._phase:
            watch.step = self.watch.step

    def stepped(self, watch: "OptimizerWatch") -> bool:
        """``watch`` has made a step; whether it is the first with which it leads in the place of another."""
        if watch is self.watch:
            self._others.clear()
        else:
            row = self._others[watch.index] = self._others.get(watch.index, 0) + 1
            if row >= self._phase:
                self._lead(watch)
        new, self._handed_over = self._handed_over, False
        return new

    def _lead(self, watch: "OptimizerWatch") -> None:
        before = self.watch.step if self.watch is not None else 0
        watch.step = max(watch.step, before)
        self.watch, self._handed_over = watch, True
        self._others.clear()


def _same(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _gone(watch: "OptimizerWatch") -> bool:
    """Whether its optimizer is no more."""
    return watch.optimizer() is None
