"""A loss that was computed and never used: many jobs look at it, find it bad, and stop or skip by themselves.

No backward, no step, and so none of the usual probes hears of it. But the loss is still a variable of the
frame that gave up.
"""

import sys
from types import FrameType

import torch
from torchvitals.hooks.source import locals_of, user_frames

FRAMES = 4
"""The training loop is rarely further away from where a job gives up."""


def newest_loss(frame: FrameType | None) -> torch.Tensor | None:
    """The newest scalar with a graph among the variables of ``frame`` and its callers.

    Without a frame, among the globals of the script: those outlive its last line.
    """
    if frame is None:
        scopes = [vars(sys.modules["__main__"])] if "__main__" in sys.modules else []
    else:
        scopes = [locals_of(each) for each, _ in zip(user_frames(frame), range(FRAMES), strict=False)]
    scalars = [
        value
        for scope in scopes
        for value in list(scope.values())
        if isinstance(value, torch.Tensor) and value.numel() == 1 and value.grad_fn is not None
    ]
    return max(scalars, key=lambda scalar: scalar.grad_fn._sequence_nr(), default=None)  # type: ignore[union-attr]
