"""Parameters that an optimizer updates though nobody computes with them any more: a head that was replaced too late."""

import gc
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import Module
from torchvitals.hooks.discovery import plain_name

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer

NAMED = 8
"""Parameters that a report names; the first says where to look."""


class Orphans(NamedTuple):
    """What the optimizers hold and no module owns, and what took its place."""

    number: int
    left_out: list[str]
    """Names of trainable parameters in the trained models that no optimizer holds."""


def tell_orphans(observer: "Observer") -> None:
    """Note the orphans of a job in its next step, and the names of what it trains without an optimizer in its facts."""
    held = [parameter for watch in observer.optimizers for parameter in watch.parameters]
    trained = [m for root in observer.roots if root.training_calls and (m := root.module()) is not None]
    if found := orphans(held, trained):
        observer.pending.scalars["orphaned_parameters"] = float(found.number)
        observer.recorder.learn(left_out=found.left_out[:NAMED])


def orphans(optimized: Sequence[torch.Tensor], trained: Iterable[Module]) -> Orphans | None:
    """Parameters without a gradient that no living module owns, where the models train some that no optimizer holds.

    Both sides are asked for: a critic that begins later is owned by a module, and a tensor that nobody uses yet has
    not been replaced by anything. The pass over the garbage collector's objects (20 to 60 ms) is made only then.
    """
    held = {id(parameter) for parameter in optimized}
    wanted = {id(p): plain_name(name) for module in trained for name, p in module.named_parameters() if p.requires_grad}
    idle = {id(parameter) for parameter in optimized if parameter.grad is None} - wanted.keys()
    left_out = [name for key, name in wanted.items() if key not in held]
    if not idle or not left_out:
        return None
    lost = idle - _owned()
    return Orphans(len(lost), left_out) if lost else None


def _owned() -> set[int]:
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), Module)]
    return {id(parameter) for module in modules for parameter in module._parameters.values()}
