"""What BatchNorm remembers of its batches on this rank, as values: ranks may differ, but only by so much.

Equality is not owed: each rank normalises by its own batches, and where buffers are not broadcast its running
statistics are its own. A few channels of each layer are enough to see that a rank has seen other data, or has a
layer in another mode.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvitals.hooks.discovery import Model, plain_name
from torchvitals.signals.records import Axis, Profile, pack_floats

if TYPE_CHECKING:
    from torch.nn import Module
    from torchvitals.hooks.recorder import Recorder

AXIS = "buffer:0"
CHANNELS = 8
"""Of each layer, evenly spaced."""
LAYERS = 64
"""At most: 512 channels are 6 kB a look."""
EVERY = 32
"""Steps between two looks: with the usual momentum of 0.1 the statistics have forgotten 97 % of the last one."""


class RunningStatistics:
    """Reads the running mean and variance of a model's BatchNorm layers now and then.

    Args:
        recorder: where the records go.
        models: whose layers.
    """

    def __init__(self, recorder: "Recorder", models: Iterable[Model]) -> None:
        self._recorder = recorder
        found = [
            (plain_name(name), module)
            for model in models
            for name, module in model.inner.named_modules()
            if _remembers(module)
        ]
        self._layers = found[:: max(1, -(-len(found) // LAYERS))]
        self._entries: list[str] = []

    @torch.no_grad()
    def step(self, step: int) -> None:
        """``step`` has been made; called after each but the first."""
        if step % EVERY or not self._layers:
            return
        places = [_channels(module.running_mean) for _, module in self._layers]
        means = [module.running_mean[at] for (_, module), at in zip(self._layers, places, strict=True)]
        variances = [module.running_var[at] for (_, module), at in zip(self._layers, places, strict=True)]
        numbers = torch.cat([each.double() for each in (*means, *variances)]).cpu().numpy()
        entries = [f"{name}[{i}]" for (name, _), at in zip(self._layers, places, strict=True) for i in at]
        if entries != self._entries:
            self._entries = entries
            self._recorder.write(Axis(AXIS, "buffer", entries))
        layers = [float(number) for number, at in enumerate(places) for _ in at]
        values = {
            "buffer_mean": pack_floats(numbers[: len(entries)]),
            "buffer_variance": pack_floats(numbers[len(entries) :]),
            "buffer_layer": pack_floats(torch.tensor(layers).numpy()),
        }
        self._recorder.write(Profile(step, self._recorder.clock(), AXIS, values))


def _remembers(module: "Module") -> bool:
    mean = getattr(module, "running_mean", None)
    return isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and isinstance(mean, Tensor) and mean.numel() > 0


def _channels(mean: Tensor) -> list[int]:
    return list(range(0, len(mean), max(1, len(mean) // CHANNELS)))[:CHANNELS]
