"""When a cheap number of every step jumps, the costly ones are worth their price: sample the next few steps."""

import math
from collections.abc import Mapping


class Suspicion:
    """Watches the trip-wire norm and the loss of every step, on two moving averages.

    A layer that dies or is cut off makes the trip-wire exactly zero; vanishing, saturation and explosion move it
    by orders of magnitude; a loss that triples says that something happened.

    Args:
        burst: steps to sample in a row: detectors ask for three.
        factor: jump of the norm against its average, up or down. Batches of one vary by about 10.
        loss_factor: jump of the loss against its average.
        smoothing: weight of the newest step in the averages.
        rest: steps after a burst without another; it doubles each time, so that a restless job costs little.

    >>> suspicion = Suspicion()
    >>> looks = [suspicion.look({"tripwire_norm": 0.0 if step >= 20 else 0.1}) for step in range(40)]
    >>> [step for step, sample in enumerate(looks) if sample]
    [20, 21, 22, 23]
    """

    __slots__ = ("_burst", "_factor", "_left", "_loss", "_loss_factor", "_norm", "_rest", "_smoothing", "_wait")

    def __init__(
        self,
        *,
        burst: int = 4,
        factor: float = 30.0,
        loss_factor: float = 3.0,
        smoothing: float = 0.1,
        rest: int = 50,
    ) -> None:
        self._burst = burst
        self._factor = math.log(factor)
        self._loss_factor = loss_factor
        self._smoothing = smoothing
        self._rest = rest
        self._wait = 0
        self._left = 0
        self._norm: float | None = None
        self._loss: float | None = None

    def look(self, values: Mapping[str, float]) -> bool:
        """Take the scalars of a step that has ended; whether the next one should be sampled."""
        norm, loss = values.get("tripwire_norm"), values.get("loss")
        jumped = self._norm_jumped(norm) or self._loss_jumped(loss)
        if self._wait:
            self._wait -= 1
        elif jumped:
            self._left = self._burst
            self._wait = self._rest
            self._rest *= 2
        if not self._left:
            return False
        self._left -= 1
        return True

    def bounds(self) -> tuple[float, float, float]:
        """Where nothing has jumped: trip-wire norms between the first two, and losses below the third.

        >>> Suspicion().bounds()
        (-inf, inf, inf)
        """
        if self._wait or self._norm is None:
            low, high = -math.inf, math.inf
        else:
            low, high = math.exp(self._norm - self._factor), math.exp(min(self._norm + self._factor, 700.0))
        highest = math.inf if self._wait or self._loss is None else self._loss_factor * self._loss
        return low, high, highest

    def _norm_jumped(self, norm: float | None) -> bool:
        if norm is None or not math.isfinite(norm):
            return False
        if norm == 0.0:
            return self._norm is not None
        log = math.log(norm)
        average = log if self._norm is None else self._norm
        self._norm = average + self._smoothing * (log - average)
        return abs(log - average) > self._factor

    def _loss_jumped(self, loss: float | None) -> bool:
        if loss is None or not math.isfinite(loss):
            return False
        size = abs(loss)
        average = size if self._loss is None else self._loss
        self._loss = average + self._smoothing * (size - average)
        return size > self._loss_factor * average
