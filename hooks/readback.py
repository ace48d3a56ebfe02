"""Reading scalars off a device without making it wait.

On the CPU a 0-d tensor is read at once. On a device all scalars of a step are stacked, copied to pinned
memory asynchronously and read when the copy's event has passed, one step later as a rule.
"""

from collections.abc import Mapping

import torch


class Arriving:
    """Scalars on their way from a device."""

    def __init__(self, scalars: Mapping[str, torch.Tensor]) -> None:
        self._names = list(scalars)
        stacked = torch.stack([scalar.detach().reshape(()).to(torch.float64) for scalar in scalars.values()])
        self._buffer = torch.empty(len(scalars), dtype=torch.float64, pin_memory=True)
        self._buffer.copy_(stacked, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def ready(self) -> bool:
        """Whether the copy has arrived; asking does not wait."""
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def values(self, *, wait: bool = False) -> dict[str, float]:
        """The scalars; only sensible when :meth:`ready`, or with ``wait`` when the job is ending anyway."""
        if wait:
            self._event.synchronize()
        return dict(zip(self._names, self._buffer.tolist(), strict=True))


def read(scalars: Mapping[str, torch.Tensor | float]) -> tuple[dict[str, float], Arriving | None]:
    """What can be read now, and what is on its way.

    >>> read({"loss": torch.tensor(2.5), "rate": 0.1})
    ({'loss': 2.5, 'rate': 0.1}, None)
    """
    now: dict[str, float] = {}
    later: dict[str, torch.Tensor] = {}
    for name, value in scalars.items():
        if isinstance(value, torch.Tensor) and value.device.type == "cuda":
            later[name] = value
        else:
            now[name] = float(value)
    return now, Arriving(later) if later else None
