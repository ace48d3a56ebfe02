"""Steps that are only counted, where steps are too short to pay for a look at each.

Between two watched steps the hooks keep what a failure cannot be explained without (the call to replay, the
loss, the trip-wire norm) and do nothing else. A number out of the usual range makes the step in progress a
watched one at once. A watched step costs some 0.2 ms in a job that evicts our code between two of its hooks
(2-core CPU); of 32 steps with 31 counted each cost 0.12 to 0.15 ms where seven others used the cores, and less on
a quiet machine, which has not been measured.
"""

from typing import Any

import torch
from torchvitals.hooks.losses import single
from torchvitals.hooks.recorder import Recorder

NOT_READ = float("-inf")
"""No loss and no norm is this."""


class CountedSteps:
    """What is felt in a counted step.

    ``left`` is the number of steps still to be counted, 0 while the step in progress is watched.
    """

    __slots__ = ("_recorder", "backward_passes", "left", "loss", "norm")

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self.left = 0
        self.backward_passes = 0
        self.loss = 0.0
        """Sum of the losses of the step in progress that could be read without waiting."""
        self.norm = NOT_READ

    def backward(self, root: Any) -> bool:
        """``backward`` was called on ``root``; ``False`` when its loss is not finite."""
        loss = root if isinstance(root, torch.Tensor) else single(root)
        if loss is not None and loss.is_cpu and loss.numel() == 1:
            value = loss.item()
            if value - value != 0.0:
                return False
            self.loss += value
        self.backward_passes += 1
        return True

    def feel(self, wire: torch.Tensor | None, low: float, high: float, highest_loss: float) -> bool:
        """Read the gradient of ``wire``, about to be applied; ``False`` when it or the loss is out of the usual."""
        gradient = wire.grad if wire is not None else None
        if gradient is None:
            return self.loss < highest_loss
        self.norm = torch.linalg.vector_norm(gradient).item()
        return low < self.norm < high and self.loss < highest_loss

    def keep(self, step: int, optimizer: int, logged: dict[str, float]) -> None:
        """The step is over: its numbers go to the spool with the next record, or the next beat."""
        if self.backward_passes:
            logged["loss"] = self.loss
        if self.norm != NOT_READ:
            logged["tripwire_norm"] = self.norm
        recorder = self._recorder
        recorder.kept.append((step, recorder.clock(), logged, optimizer))
        self.clear()

    def clear(self) -> None:
        """A step begins."""
        self.backward_passes = 0
        self.loss = 0.0
        self.norm = NOT_READ
