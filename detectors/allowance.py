"""How often detectors may be wrong: the one number a user sets, turned into the threshold of each test.

A month of a run is so many tests, so each may err with a chance of one in so many. Two things stand between that and
an honest threshold. The far tail of telemetry is not the far tail of a textbook distribution; and tests come
in clusters: noise that is high now is high a moment later. Both are measured on the run itself, in :class:`Tail`.
"""

from typing import Protocol, runtime_checkable

import msgspec
import numpy as np

MONTH = 30 * 86400.0
UNTIMED = 1.0
"""Seconds from one test to the next where nobody told the time."""


class Allowance(msgspec.Struct, frozen=True):
    """``per_month`` false alarms are expected in a month of a run, of all calibrated detectors together."""

    per_month: float = 1.0
    shares: int = 1
    """Detectors that share it equally."""

    def chance(self, seconds: float) -> float:
        """The share of one detector in ``seconds`` of a run: its chance of a false alarm in that time.

        >>> Allowance(per_month=1.0, shares=2).chance(86400.0) * 60
        1.0
        """
        return self.per_month * seconds / (MONTH * self.shares)


@runtime_checkable
class Calibrated(Protocol):
    """A detector whose thresholds follow from an allowance."""

    def allow(self, allowance: Allowance) -> None:
        """Be wrong so often, from now on."""
        ...


class Tail:
    """The threshold for scores that a healthy run exceeds as often as is allowed, from its own past.

    A score is -ln p of a test, or anything else whose large values fall off exponentially; the rate at which they do is
    what p got wrong, and it is estimated here. The run is cut into stretches of ``stretch`` tests, longer than noise
    remembers, and only the largest score of each is kept, so that a cluster counts once. Above the ``kept``-th largest
    of n such maxima the excess is exponential, and the chance that the next one lies ``y`` mean excesses above it is
    ``kept / n * (1 + y / m) ** -m`` with ``m = kept - 1``, the uncertainty of the mean included (the predictive
    distribution: Davison & Smith 1990, J. R. Stat. Soc. B 52). While fewer maxima are known, ``first`` is asked.

    The newest stretches are held back: a fault that builds up must not raise the bar for itself. For the same reason a
    score above the threshold counts as what scores above it are expected to be, one mean excess more, however large it
    is: cut off at the threshold itself they would make the tail look shorter than it is, and false alarms 1.4 times as
    frequent as allowed.

    >>> tail, rng = Tail(Allowance(per_month=30.0), stretch=1, held=0), np.random.default_rng(0)
    >>> scores = rng.exponential(3.0, 40_000)  # p is wrong: its logarithm falls off at a third of the rate
    >>> for second, score in enumerate(scores[:20_000]):
    ...     tail.note(float(score), 10.0 * second)
    >>> bool(0.5 < (scores[20_000:] > tail.limit()).mean() / tail.chance() < 2)
    True
    """

    def __init__(self, allowance: Allowance, *, stretch: int = 16, kept: int = 16, held: int = 2) -> None:
        self.allowance = allowance
        self.stretch, self.kept, self.held = stretch, kept, held
        self.tests = 0
        self.maxima = 0
        """Stretches that ended and are no longer held back."""
        self._largest = np.full(kept, -np.inf)
        self._waiting: list[float] = []
        self._highest = -np.inf
        self._began = self._ended = 0.0

    def note(self, score: float, time: float) -> None:
        """Take the largest score of one test over all subjects; -inf where the effect asked for was not there."""
        score = min(score, self.limit() + self.excess())
        if not self.tests:
            self._began = time
        self.tests += 1
        self._ended = max(self._ended, time)
        self._highest = max(self._highest, score)
        if self.tests % self.stretch:
            return
        self._waiting.append(self._highest)
        self._highest = -np.inf
        if len(self._waiting) > self.held:
            self._settle(self._waiting.pop(0))

    def seconds(self) -> float:
        """From one test to the next."""
        elapsed = self._ended - self._began
        return elapsed / (self.tests - 1) if self.tests > 1 and elapsed > 0 else UNTIMED

    def chance(self) -> float:
        """Of a false alarm that one test may have; small."""
        return min(self.allowance.chance(self.seconds()), 0.1)

    def first(self) -> float:
        """The threshold of a score that is -ln p with an honest p."""
        return float(-np.log(self.chance()))

    @property
    def known(self) -> bool:
        """Whether the past decides."""
        return bool(np.isfinite(self._largest[0]))

    def limit(self) -> float:
        """The threshold that is in force."""
        if not self.known:
            return self.first()
        excess, m = self.excess(), self.kept - 1
        allowed = min(self.chance() * self.stretch, 0.5)
        beyond = m * ((self.kept / (self.maxima * allowed)) ** (1 / m) - 1)
        return float(self._largest[0] + excess * beyond)

    def excess(self) -> float:
        """Mean excess of the largest scores over the least of them; 1 of an honest -ln p, while they are not known."""
        return float((self._largest[1:] - self._largest[0]).mean()) if self.known else 1.0

    def _settle(self, score: float) -> None:
        self.maxima += 1
        if score > self._largest[0]:
            self._largest[0] = score
            self._largest.sort()
