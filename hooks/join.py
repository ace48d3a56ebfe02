"""Uneven inputs under torch's ``Join``: while a rank that has none left shadows the others, their steps pass it by.

Steps are counted by each rank for itself and compared across ranks by their number. A rank that has joined makes no
step, yet takes part in every forward of the others; without those steps in its count it would be compared, from the
next epoch on, with what the others were a few steps ago.
"""

import sys
from typing import TYPE_CHECKING, Any

from torchvitals.hooks.taps import Taps

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchvitals.hooks.observer import Observer


class JoinedSteps:
    """Counts the forwards that this rank tells the others of, and those of theirs that it shadows."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._step = -1
        self._forwards = 0
        """Of the step in progress, told to the others: several where gradients are accumulated."""
        self._usual = 1
        """The same of the last whole step."""
        self._shadowed = 0

    def install(self, taps: Taps, guard: "Callable[[str, Callable[..., Any]], Callable[..., Any]]") -> None:
        """Listen at the two places where ranks count each other."""

        def tells(_args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
            self.told()

        def counted(others: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
            if isinstance(others, int | float) and others > 0:
                self.shadowed()

        join = getattr(sys.modules.get("torch.distributed.algorithms.join"), "Join", None)
        taps.wrap(join, "notify_join_context", guard("join", tells))
        taps.wrap(join, "_get_num_nonjoined_procs", None, guard("join", counted))

    def told(self) -> None:
        """A forward of this rank begins, and the ranks that have joined are to shadow it."""
        leading = self._observer.lead.watch
        step = leading.step if leading is not None else 0
        if step != self._step:
            self._usual = max(1, self._forwards)
            self._step, self._forwards, self._shadowed = step, 0, 0
        self._forwards += 1

    def shadowed(self) -> None:
        """Having joined, the rank takes part in a forward of the others."""
        self._shadowed += 1
        if self._shadowed % self._usual:
            return
        for watch in self._observer.optimizers:
            watch.flush()
            watch.step += 1
        if self._observer.lead.watch is not None:
            self._observer.recorder.step = self._observer.lead.watch.step
