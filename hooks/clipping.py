"""The gradient norm that the job's own clipping computes: free, but true only of what it was computed over.

Clipping once parts of a model, or two models together, or gradients that are still scaled, gives totals that are
nobody's gradient norm; so a total is taken only for an optimizer whose gradients it is made of, all of them and
no others, and only while nobody has touched them since.
"""

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torchvitals.hooks.gradients import global_norm, gradients

EPSILON = 1e-6
"""What ``clip_grad_norm_`` adds to the total before it divides."""
KEPT = 4
"""Clippings between two steps that are remembered: a generator's, a discriminator's, and one to spare each."""
EXACT = (torch.float32, torch.float64)
"""A total in half precision has three digits: the gradients are read again behind it."""


class Clip(NamedTuple):
    """One clipping: total before, limit, and marks of the gradients as they were left."""

    total: torch.Tensor
    limit: float
    gradients: frozenset[int]
    marks: list[tuple["weakref.ref[torch.Tensor]", int]]

    def stands(self) -> bool:
        """Whether the gradients are still those that were clipped, untouched."""
        return all((gradient := mark()) is not None and gradient._version == version for mark, version in self.marks)


class Clipping:
    """Remembers the newest clippings of the job."""

    def __init__(self) -> None:
        self._totals: deque[tuple[torch.Tensor, list[torch.Tensor]]] = deque(maxlen=1)
        self._clips: deque[Clip] = deque(maxlen=KEPT)
        self._whole: dict[int, torch.Tensor] = {}
        """Optimizer → norm of its gradients before values were clipped, each by itself."""
        self.count = 0
        """Clippings so far."""

    def totalled(self, total: Any, gradients: Any, kind: Any) -> None:
        """The job computed ``total``, the norm of order ``kind`` over ``gradients``."""
        self._totals.clear()
        if isinstance(total, torch.Tensor) and isinstance(gradients, list) and gradients and float(kind) == 2.0:
            self._totals.append((total, gradients))

    def scaled(self, total: Any, limit: Any) -> float | None:
        """The job scaled down to ``limit`` the gradients whose norm is ``total``; ``limit`` where that is known."""
        known = self._totals.pop() if self._totals else None
        if known is None or known[0] is not total or not isinstance(limit, int | float | torch.Tensor):
            return None
        gradients = known[1]
        marks = [(weakref.ref(gradient), gradient._version) for gradient in (gradients[0], gradients[-1])]
        clip = Clip(total.detach(), float(limit), frozenset(map(id, gradients)), marks)
        self._clips.append(clip)
        self.count += 1
        return clip.limit

    def before_values(self, optimizer: int, parameters: Sequence[torch.Tensor]) -> None:
        """Values of gradients are about to be clipped, maybe those of ``parameters``, which ``optimizer`` holds."""
        if optimizer not in self._whole and (norm := global_norm(gradients(parameters))) is not None:
            self._whole[optimizer] = norm

    def changes(self) -> None:
        """A backward pass begins: what was clipped before it and never applied, as a skipped step's, is of no step."""
        self._whole.clear()

    def unscaled(self, optimizer: int, parameters: Sequence[torch.Tensor], scale: torch.Tensor) -> None:
        """The loss scale was taken off the gradients of ``parameters``: what was clipped is not what will be applied.

        That does not raise the version of the gradients it changes.
        """
        if (clip := self._of(parameters)) is not None:
            self._whole[optimizer] = clip.total / scale.to(clip.total.device)
        self._clips.clear()

    def told(self, optimizer: int, parameters: Sequence[torch.Tensor]) -> dict[str, torch.Tensor | float]:
        """The signals that clipping gives of the gradients of ``parameters``, which ``optimizer`` is about to apply."""
        whole = self._whole.pop(optimizer, None)
        clip = self._of(parameters)
        if clip is not None:
            return readings(clip)
        return {"gradient_norm_unclamped": whole} if whole is not None else {}

    def _of(self, parameters: Sequence[torch.Tensor]) -> Clip | None:
        """The clipping that left the gradients of exactly these ``parameters`` as they are."""
        if not self._clips:
            return None
        present = frozenset(id(p.grad) for p in parameters if p.grad is not None)
        while self._clips and not self._clips[0].stands():
            self._clips.popleft()
        standing = (clip for clip in reversed(self._clips) if clip.gradients == present and clip.stands())
        return next(standing, None)


def readings(clip: Clip) -> dict[str, torch.Tensor | float]:
    """The signals that a clipping gives: the norm before, and, where it is exact, the norm after.

    Over shards torch makes the norm of the whole with a collective of its own, or leaves each rank its part.
    """
    total: Any = clip.total
    if hasattr(total, "to_local"):
        if any(placement.is_partial() for placement in total.placements):
            return {"gradient_norm_unclipped_shard": total.to_local()}
        total = total.to_local()
    values: dict[str, torch.Tensor | float] = {"gradient_norm_unclipped": total}
    if total.dtype in EXACT:
        values["gradient_norm"] = clipped(total, clip.limit)
    return values


def clipped(total: torch.Tensor, limit: float) -> torch.Tensor:
    """The norm that is left, by the formula of ``clip_grad_norm_``; an infinite total leaves NaN."""
    return total * torch.clamp(limit / (total + EPSILON), max=1.0)
