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
        urgent: a jump by the factor to this power (27,000 of the norm, 27 of the loss) is looked at in a rest, too.
        urgent_bursts: of them in a run.

    >>> suspicion = Suspicion()
    >>> looks = [suspicion.look({"tripwire_norm": 0.0 if step >= 20 else 0.1}) for step in range(40)]
    >>> [step for step, sample in enumerate(looks) if sample]
    [20, 21, 22, 23]
    """

    __slots__ = (
        "_burst", "_factor", "_left", "_loss", "_loss_factor", "_norm", "_rest", "_smoothing", "_urgent",
        "_urgent_left", "_wait",
    )  # fmt: skip

    def __init__(
        self,
        *,
        burst: int = 4,
        factor: float = 30.0,
        loss_factor: float = 3.0,
        smoothing: float = 0.1,
        rest: int = 50,
        urgent: float = 3.0,
        urgent_bursts: int = 8,
    ) -> None:
        self._burst = burst
        self._factor = math.log(factor)
        self._loss_factor = math.log(loss_factor)
        self._urgent = urgent
        self._urgent_left = urgent_bursts
        self._smoothing = smoothing
        self._rest = rest
        self._wait = 0
        self._left = 0
        self._norm: float | None = None
        self._loss: float | None = None

    def look(self, values: Mapping[str, float]) -> bool:
        """Take the scalars of a step that has ended; whether the next one should be sampled."""
        norm, loss = values.get("tripwire_norm"), values.get("loss")
        jump = max(self._norm_jump(norm), self._loss_jump(loss))
        if self._wait and jump > self._urgent and self._urgent_left and not self._left:
            self._urgent_left -= 1
            self._left = self._burst
        elif self._wait:
            self._wait -= 1
        elif jump > 1.0:
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
        power = self._urgent if self._wait else 1.0
        if self._wait and not self._urgent_left:
            return -math.inf, math.inf, math.inf
        low, high, highest = -math.inf, math.inf, math.inf
        if self._norm is not None:
            wide = power * self._factor
            low, high = math.exp(self._norm - wide), math.exp(min(self._norm + wide, 700.0))
        if self._loss is not None and (self._loss or not self._wait):
            highest = math.exp(power * self._loss_factor) * self._loss
        return low, high, highest

    def _norm_jump(self, norm: float | None) -> float:
        """How far the norm jumped, in logarithms of the factor; one that is exactly zero is no urgent matter."""
        if norm is None or not math.isfinite(norm):
            return 0.0
        if norm == 0.0:
            return 0.0 if self._norm is None else self._urgent
        log = math.log(norm)
        average = log if self._norm is None else self._norm
        self._norm = average + self._smoothing * (log - average)
        return abs(log - average) / self._factor

    def _loss_jump(self, loss: float | None) -> float:
        if loss is None or not math.isfinite(loss):
            return 0.0
        size = abs(loss)
        average = size if self._loss is None else self._loss
        self._loss = average + self._smoothing * (size - average)
        if not average:
            return self._urgent if size else 0.0
        return math.log(size / average) / self._loss_factor if size else 0.0
