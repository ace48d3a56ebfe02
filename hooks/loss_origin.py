"""The loss past the model's answers: its graph and its line tell what made it, or its gradient, not finite.

Nothing is run again here. Of weights that belong to no module all of the forward is such an expression.
"""

from collections.abc import Sequence
from types import FrameType

import torch
from torchvitals.hooks.births import Birth, kind_of
from torchvitals.hooks.computed import begun_in_job
from torchvitals.hooks.expression import LossExpression
from torchvitals.hooks.job_tensors import inputs_finite, living_loss
from torchvitals.hooks.operation_line import nearest, operation_line
from torchvitals.hooks.source import Line, user_frames
from torchvitals.hooks.verdict import Origin, Scene, tell


def of_value(loss: torch.Tensor, scene: Scene, *, after: int, frames: list[FrameType], why: str = "") -> Origin:
    """Where the non-finite ``loss`` comes from, as far as its own operations go. Before backward, which frees them.

    Args:
        loss: the root of backward.
        scene: what the model was called with, and its weights.
        after: sequence number of the model's output, -1 where no model was called.
        frames: the job's, innermost first.
        why: what is known to be missing.
    """
    birth = LossExpression(loss, after).first_birth() or Birth("", _value(loss), allowed=False)
    if (birth.source == "batch" or not birth.operation) and begun_in_job(birth, frames):
        origin = tell(birth, scene, phase="loss", why=why)
    else:
        if not birth.operation and not birth.source:
            why = why or "no operation of the loss kept what it would take to tell"
        origin = _told(birth, scene, frames, why)
    if origin["operation"] == "batch" and after < 0 and inputs_finite(frames):
        return {**origin, "operation": "", "batch_finite": True}  # made inside the model, which was not seen
    return origin


def of_gradient(
    scene: Scene, *, after: int, gradient: torch.Tensor | None = None, spoilt: Sequence[torch.Tensor] = ()
) -> Origin:
    """Which operation of a finite loss has turned its gradient non-finite; its graph lives as long as the loss does.

    Args:
        scene: as above.
        after: as above.
        gradient: what flowed into the model's answers, if that is what is not finite.
        spoilt: parameters whose gradients are not finite, where that came past the model.
    """
    frames = list(user_frames())
    loss = living_loss(frames)
    operation, alone = LossExpression(loss, after).singular_operation(spoilt) if loss is not None else ("", False)
    value = _value(gradient) if gradient is not None else "nan"
    birth = Birth(f"aten.{operation}" if operation else "", value, allowed=False, backward=True)
    if gradient is not None:
        birth.describe([], gradient)
    why = "" if alone else "several operations of the loss can do this, and backward has freed their values"
    return _told(birth, scene, frames, why if operation else "the loss's graph is gone")


def _told(birth: Birth, scene: Scene, frames: list[FrameType], why: str) -> Origin:
    operand = (birth.inputs["min"], birth.inputs["max"]) if "min" in birth.inputs else None
    line = operation_line(birth.operation.removeprefix("aten."), frames, operand) if birth.operation else Line()
    birth.place.line = line if line.file else nearest(frames)
    return tell(birth, scene, phase="loss", why=why)


def _value(tensor: torch.Tensor) -> str:
    kind = kind_of(tensor.detach())
    return kind.worst if kind is not None else "finite"
