"""Tensors among the local variables of the job's frames: its loss, its batch."""

from types import FrameType

import torch
from torchvitals.hooks.births import kind_of
from torchvitals.hooks.nested import tensors
from torchvitals.hooks.source import locals_of

_NEAR = 4
"""Frames that are looked at, innermost first: a loop, its step function and what that calls."""


def living_loss(frames: list[FrameType]) -> torch.Tensor | None:
    """The newest scalar with a graph among the local variables of the job's frames: most often ``loss``."""
    found = [
        value
        for frame in frames[:_NEAR]
        for value in locals_of(frame).values()
        if isinstance(value, torch.Tensor) and value.grad_fn is not None and value.numel() == 1
    ]
    return max(found, key=lambda tensor: tensor.grad_fn._sequence_nr(), default=None)  # type: ignore[union-attr]


def inputs_finite(frames: list[FrameType]) -> bool:
    """Whether the job's frames hold floating tensors without a graph, its batch among them, and all are finite."""
    held = [
        tensor.detach()
        for frame in frames[:_NEAR]
        for tensor in tensors(list(locals_of(frame).values()))
        if tensor.is_floating_point() and tensor.grad_fn is None and not tensor.requires_grad
    ]
    return bool(held) and not any(kind_of(tensor) for tensor in held)
