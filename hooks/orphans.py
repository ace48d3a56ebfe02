"""Optimizers on the wrong parameters: of a head that was replaced too late, or of the model of another optimizer."""

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

IDLE_STEPS = 10
"""Steps without any gradient of its own after which an optimizer is not one that has still to begin."""


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
    elif found := held_twice([watch.parameters for watch in observer.optimizers], trained):
        observer.pending.scalars["orphaned_parameters"] = float(found.number)
        observer.recorder.learn(left_out=found.left_out[:NAMED], held_twice=found.number)
    elif observer.leading.step >= IDLE_STEPS and (found := of_another_model(held, trained)):
        observer.pending.scalars["orphaned_parameters"] = float(found.number)
        model = found.left_out[0].partition(".")[0]
        observer.recorder.learn(left_out=found.left_out[:NAMED], left_out_model=model)


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


def held_twice(optimizers: Sequence[Sequence[torch.Tensor]], trained: Iterable[Module]) -> Orphans | None:
    """Parameters in two optimizers, where a whole model in training gets gradients and is in none.

    A line was copied and its model not changed. Two optimizers may well share an encoder, and a model may well be
    in no optimizer (an attack, a style to be copied): together they make no sense.
    """
    held: set[int] = set()
    twice: set[int] = set()
    for parameters in optimizers:
        own = {id(parameter) for parameter in parameters}
        twice |= own & held
        held |= own
    if not twice:
        return None
    for module in trained:
        wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
        alone = all(id(p) not in held and p.grad is not None for p in wanted.values())
        if wanted and alone and module.training:
            return Orphans(len(twice), [f"{type(module).__name__}.{plain_name(name)}" for name in wanted])
    return None


def of_another_model(optimized: Sequence[torch.Tensor], trained: Iterable[Module]) -> Orphans | None:
    """Optimizers of nothing that has a gradient, where a whole model in training gets gradients and is in none.

    The teacher was given to the optimizer, and not the student.
    """
    if any(parameter.grad is not None for parameter in optimized):
        return None
    held = {id(parameter) for parameter in optimized}
    for module in trained:
        wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
        apart = held.isdisjoint(map(id, module.parameters()))  # else it holds what is frozen of the same model
        if wanted and apart and all(p.grad is not None for p in wanted.values()):
            return Orphans(len(optimized), [f"{type(module).__name__}.{plain_name(name)}" for name in wanted])
    return None


def _owned() -> set[int]:
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), Module)]
    return {id(parameter) for module in modules for parameter in module._parameters.values()}
