"""The wrappers that share gradients (DDP): whether they were told not to, and whether a step is apart by intent.

Ranks may train apart for some steps and average their weights then (LocalSGD, post-local SGD). Two things tell that
from gradients that nobody shares by mistake: the one backward of a step runs under ``no_sync``, which accumulates
nothing, in a job whose code could average weights at all (hooks/averaging_code.py), or a communication hook shares
them with a part of the wrapper's ranks only.
"""

import sys
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch.nn import Module
from torchvitals.hooks.averaging_code import NONE, averaging_in_code

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer
    from torchvitals.hooks.optimizers import OptimizerWatch
    from torchvitals.hooks.pending import Pending

Scalars = dict[str, torch.Tensor | float]

AVERAGERS = ("accelerate.local_sgd", "torchft.local_sgd")
"""Modules that only a job imports that averages its weights: how rarely is its own affair."""
LAST = "no_sync_last"
APART, IN_CODE = "trains_apart", "averaging_in_code"


class Wrapped:
    """What the wrappers of the models that ``observer`` knows would share, and do not."""

    def __init__(self, observer: "Observer") -> None:
        self._observer = observer
        self._sharing: list[Module] = []
        self._held: dict[int, tuple[weakref.ref[torch.Tensor], bool]] = {}
        """By optimizer its first parameter, and whether a wrapper holds it: a look through 200 takes 1 ms."""

    def backward_begins(self, pending: "Pending") -> None:
        """A backward pass begins in a watched step."""
        sharing = self._observer.naming.sharing
        if not sharing or any(name in sys.modules for name in AVERAGERS):
            return
        told_not_to = not any(wrapper.require_backward_grad_sync for wrapper in sharing)
        pending.scalars["no_sync_passes"] = pending.scalars.get("no_sync_passes", 0.0) + told_not_to
        pending.scalars[LAST] = float(told_not_to)
        if pending.with_all is None:
            pending.with_all = self._issued()

    def told(self, watch: "OptimizerWatch", pending: "Pending", scalars: Scalars) -> Scalars:
        """What to add to the ``scalars`` of the step that ``watch`` closes; of others' weights they say nothing."""
        under, shared = scalars.get("no_sync_passes"), scalars.get("collectives")
        last = scalars.pop(LAST, None)
        code: Scalars = {IN_CODE: float(averaging_in_code())} if shared == 0 else {}
        if under is None:
            return code
        if not self._holds(watch):
            del scalars["no_sync_passes"]
            return {}
        if shared == 0:
            meant = under == 1 == pending.backward_passes and code[IN_CODE] != NONE
            return code | ({APART: 1.0} if meant else {})
        kept: Scalars = {LAST: 1.0} if last else {}
        with_all = self._issued() if shared and pending.with_all is not None else None
        return kept | ({APART: 1.0} if with_all is not None and with_all == pending.with_all else {})

    def _issued(self) -> int | None:
        """Collectives so far in the groups of the wrappers; ``None`` where there are no others to tell them from."""
        groups = [getattr(wrapper, "process_group", None) for wrapper in self._observer.naming.sharing]
        return self._observer.collectives.within([group for group in groups if group is not None])

    def _holds(self, watch: "OptimizerWatch") -> bool:
        """Whether a wrapper holds the first parameter of ``watch`` that is to be trained."""
        if self._sharing is not self._observer.naming.sharing:
            self._sharing, self._held = self._observer.naming.sharing, {}
        first = next((parameter for parameter in watch.parameters if parameter.requires_grad), None)
        if first is None:
            return False
        known = self._held.get(watch.index)
        if known is None or known[0]() is not first:
            known = weakref.ref(first), _among(first, self._sharing)
            self._held[watch.index] = known
        return known[1]


def _among(parameter: torch.Tensor, wrappers: Iterable[Module]) -> bool:
    return any(parameter is own for wrapper in wrappers for own in wrapper.parameters())
