"""A loss that was computed and never used: many jobs look at it, find it bad, and stop or skip by themselves.

No backward, no step, and so none of the usual probes hears of it. But the loss is still a variable of the
frame that gave up.
"""

import linecache
import sys
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import cast

import torch
from torchvitals.hooks.source import locals_of, user_frames

FRAMES = 4
"""The training loop is rarely further away from where a job gives up."""


def job_frames(frame: FrameType | None) -> list[FrameType]:
    """The job's frames from ``frame`` outwards, innermost first; without one, where its script ended."""
    if frame is not None:
        return list(user_frames(frame))[:FRAMES]
    script = sys.modules.get("__main__")
    # Python takes ``__file__`` off the script's module as soon as the script is over.
    file = getattr(script, "__file__", None) or sys.argv[0]
    if script is None or not Path(file).is_file():
        return []
    file = str(Path(file).resolve())
    scope = vars(script)
    # The frame itself is gone with the script's last line; its variables and its source are not.
    ended = SimpleNamespace(
        f_code=SimpleNamespace(co_filename=file, co_flags=0),
        f_lineno=len(linecache.getlines(file)),
        f_globals=scope,
        f_locals=scope,
    )
    return [cast("FrameType", ended)]


def newest_loss(frames: list[FrameType]) -> torch.Tensor | None:
    """The newest scalar with a graph among the variables of ``frames``."""
    scalars = [
        value
        for frame in frames
        for value in list(locals_of(frame).values())
        if isinstance(value, torch.Tensor) and value.numel() == 1 and value.grad_fn is not None
    ]
    return max(scalars, key=lambda scalar: scalar.grad_fn._sequence_nr(), default=None)  # type: ignore[union-attr]
