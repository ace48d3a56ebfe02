"""What the steps of one optimizer are compared by between ranks: collectives, sums of the weights, own gradients."""

from typing import TYPE_CHECKING

import torch
from torchvitals.hooks.averaging import Averaging
from torchvitals.hooks.averaging_code import averaging_in_code
from torchvitals.hooks.local_gradients import LocalGradient
from torchvitals.hooks.weight_sums import WeightSums
from torchvitals.hooks.wrapped import APART, IN_CODE

if TYPE_CHECKING:
    from torchvitals.hooks.observer import Observer
    from torchvitals.hooks.optimizers import OptimizerWatch

Readings = dict[str, torch.Tensor | float]


class RankReadings:
    """Reads what only a rank among others has to tell of a step; each of its readers is under a fuse.

    Args:
        watch: whose parameters are summed.
        observer: who counts the collectives, and knows whether there are other ranks.
    """

    def __init__(self, watch: "OptimizerWatch", observer: "Observer") -> None:
        guard = observer.recorder.fuse.guard
        self._observer = observer
        self._averaging = Averaging()
        self.shared = 0.0
        """Collectives issued from the backward of the last watched step on; 0 where ranks share no gradients."""
        self.local = LocalGradient(guard, observer.naming.whole_of)
        sums = WeightSums()
        self._sum = guard("sums", lambda: sums.of(watch.parameters, watch.step))
        self._sum_found = guard("sums", lambda: sums.now(watch.parameters))

    def before_step(self) -> Readings:
        """Of the weights as a step finds them, where ranks may have averaged them since the last one."""
        if not self._averaging.due(self._observer.pending.collectives):
            return {}
        return _named("parameter_sum_found", self._sum_found())

    def after_step(self) -> Readings:
        """Of the weights as the step has left them: one number that dates what the digests find."""
        return _named("parameter_sum", self._sum()) if self._observer.digests.compared else {}

    def step_over(self, readings: Readings) -> None:
        """A watched step has ended, with these ``readings`` in all."""
        shared = 0.0 if APART in readings else readings.get("collectives")
        self.shared = float(shared or 0.0)
        self._averaging.step_over(float(shared) if shared is not None else None, self._observer.collectives.total())

    def counted(self, issued: int) -> Readings:
        """Of a step that was only counted, and before whose backward there were ``issued`` collectives."""
        shared = max(0, self._observer.collectives.total() - issued)
        code = {} if shared else {IN_CODE: float(averaging_in_code())}
        return {"collectives": float(shared), **code, **self.after_step()}


def _named(name: str, number: torch.Tensor | float | None) -> Readings:
    return {} if number is None else {name: number}
