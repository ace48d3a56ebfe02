"""What a small real training says, step by step, without the hooks: the raw material of the benchmarks."""

from collections.abc import Iterable

import msgspec
import torch
from torch import Tensor, nn


class Recording(msgspec.Struct, kw_only=True):
    """The step scalars of one optimizer of one training, and the truth about it.

    ``kinds`` are the finding kinds that would be right (empty: healthy), ``causes`` the right cause words,
    ``onset`` the step at which the fault was put in.
    """

    family: str
    name: str
    seed: int
    kinds: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    onset: int = 0
    steps: list[dict[str, float]] = []

    @property
    def healthy(self) -> bool:
        return not self.kinds


def norm_of(gradients: Iterable[Tensor | None]) -> float:
    """The 2-norm over all gradients, in double precision."""
    present = [gradient for gradient in gradients if gradient is not None]
    if not present:
        return 0.0
    return float(torch.stack([gradient.double().norm() for gradient in present]).norm())


class Tape:
    """Applies optimizer steps and writes down what the hooks would say of each."""

    def __init__(self, parameters: Iterable[nn.Parameter], optimizer: torch.optim.Optimizer, clip: float = 0) -> None:
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.clip = clip
        self.steps: list[dict[str, float]] = []
        self.reset = True

    def learn(self, loss: Tensor, inputs: Tensor | None = None, *, backward: bool = True) -> None:
        """Clear the gradients (unless ``reset`` is off), run backward and take one step."""
        if self.reset and backward:
            self.optimizer.zero_grad()
        if backward:
            loss.backward()
        self.apply(float(loss.detach()), inputs)

    def apply(self, loss: float, inputs: Tensor | None = None, *, scale: float = 1.0, skipped: int = 0) -> None:
        """Clip and step with the gradients that are there."""
        values = {"loss": loss, "loss_scale": scale, "skipped_steps": float(skipped), "backward_passes": 1.0}
        values["learning_rate"] = max(group["lr"] for group in self.optimizer.param_groups)
        values["gradients_reset"] = float(self.reset)
        if self.clip:
            total = float(nn.utils.clip_grad_norm_(self.parameters, self.clip))
            values["gradient_norm_unclipped"] = total
        values["gradient_norm"] = norm_of(p.grad for p in self.parameters)
        values["tripwire_norm"] = norm_of(p.grad for p in self.parameters[:2])
        if inputs is not None:
            values["batch_items"] = float(len(inputs))
        if inputs is not None and inputs.is_floating_point():
            values["input_absmax"] = float(inputs.abs().max())
            values["input_nonfinite"] = float(not bool(torch.isfinite(inputs).all()))
        self.optimizer.step()
        self.steps.append(values)
