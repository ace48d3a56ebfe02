"""How often detectors may be wrong: the one number a user sets, turned into the threshold of each test.

A month of a run is so many tests, so each may err with a chance of one in so many. Two things stand between that and
an honest threshold. The far tail of telemetry is not the far tail of a textbook distribution; and tests come
in clusters: noise that is high now is high a moment later. Both are measured on the run itself, in :class:`Tail`.
"""

from typing import Protocol, runtime_checkable

import msgspec
import numpy as np

MONTH = 30 * 86400.0
LEAST_SPREAD = 1e-12
"""Variance of levels; below, they are all the same."""
LEAST_EXCESS = 0.1
"""Of the score of an alarm over the threshold. With 1, as an honest -ln p has it, 0.4 times as many come where many are
asked for."""
REACH = 10.0
"""Times as far as the past itself has seen; it is worth about 2 in -ln p where p is honest."""
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
    distribution: Davison & Smith 1990, J. R. Stat. Soc. B 52).

    As far as once in ``REACH`` times so many stretches as there have been, it is the root of the score whose excess is
    taken as exponential: -ln p grows as the square of a distance, and where the spread of the noise itself comes and
    goes, squares fall off slower than that: in bursts one false alarm asked for made 2.4 with scores alone. Further out
    roots would ask for what no test can say.

    Where stretches remember as well, a maximum is no news as far as those before tell it: what counts is by how much
    its root lies above ``memory`` times their level. Without that, each small step of a level to where it had never
    been was an alarm: 3.9 times as many as asked where it wanders for 10,000 tests, and 0.9 times with it.
    While fewer maxima are known, ``first`` is asked.

    The newest stretches are held back: a fault that builds up must not raise the bar for itself. For the same reason a
    score above the threshold counts as what scores above it are expected to be, one mean excess more, however large it
    is: cut off at the threshold itself they would make the tail look shorter than it is, and false alarms 1.4 times as
    frequent as allowed. That is never nothing: where all that were kept had been cut off, at one place, a cycle was
    told of each time that it came round, a hundred times.

    Args:
        allowance: how often to be wrong.
        stretch: tests in a stretch.
        kept: largest maxima that make the tail. With 16 the extrapolation begins further in, and the past is known
            later: noise in bursts, whose tail is no exponential, made 2.3 times as many false alarms as asked, with 8
            1.9 times.
        held: newest stretches that do not count yet.
        slowness: stretches over which the level of maxima is taken. With 1, where it wanders, 3.1 times as many false
            alarms as were asked came at ten in 10,000 tests, with 3 twice as many, with 8 1.8 times.

    >>> tail, rng = Tail(Allowance(per_month=30.0), stretch=1, held=0), np.random.default_rng(0)
    >>> scores = rng.exponential(3.0, 40_000)  # p is wrong: its logarithm falls off at a third of the rate
    >>> for second, score in enumerate(scores[:20_000]):
    ...     tail.note(float(score), 10.0 * second)
    >>> bool(0.5 < (scores[20_000:] > tail.limit()).mean() / tail.chance() < 2)
    True
    """

    def __init__(
        self, allowance: Allowance, *, stretch: int = 16, kept: int = 8, held: int = 2, slowness: float = 8.0
    ) -> None:
        self.allowance = allowance
        self.stretch, self.kept, self.held, self.slowness = stretch, kept, held, slowness
        self.tests = 0
        self.maxima = 0
        """Stretches that ended and are no longer held back."""
        self.memory = 0.0
        """How far maxima follow the level before, beyond one standard error of not at all: 0 to 1."""
        self._level = np.nan
        """Of the roots of maxima that are no longer held back, of those stretches in which any test had a score."""
        self._sums = np.zeros(6)
        """Over such stretches: their number, roots, levels before, products, squares of both."""
        self._pairs = np.tile([-np.inf, 0.0], (kept, 1))
        """Roots that were most above what was expected, and the level before each."""
        self._news = np.full(kept, -np.inf)
        """By how much they were, the least first."""
        self._waiting: list[tuple[float, float]] = []
        self._highest = -np.inf
        self._began = self._ended = 0.0

    def note(self, score: float, time: float) -> None:
        """Take the largest score of one test over all subjects; -inf where the effect asked for was not there."""
        if score > self._highest:
            score = min(score, self.limit() + max(self.excess(), LEAST_EXCESS))
        if not self.tests:
            self._began = time
        self.tests += 1
        self._ended = max(self._ended, time)
        self._highest = max(self._highest, score)
        if self.tests % self.stretch:
            return
        self._waiting.append((self._highest, self._level))
        self._highest = -np.inf
        if len(self._waiting) > self.held:
            self._settle(*self._waiting.pop(0))

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
        return bool(np.isfinite(self._news[0]))

    def limit(self) -> float:
        """The threshold that is in force."""
        if not self.known:
            return self.first()
        m = self.kept - 1
        allowed = min(self.chance() * self.stretch, 0.5)
        beyond = m * ((self.kept / (self.maxima * allowed)) ** (1 / m) - 1)
        near = float(np.clip(beyond, 0.0, m * ((REACH * self.kept) ** (1 / m) - 1)))
        fresh = _squared(float(self._news[0] + (self._news[1:] - self._news[0]).mean() * near))
        return _squared(_root(fresh + self.excess() * (beyond - near)) + self.memory * self._level)

    def excess(self) -> float:
        """Mean excess of the largest scores over the least of them; 1 of an honest -ln p, while they are not known."""
        if not self.known:
            return 1.0
        squares = self._news * np.abs(self._news)
        return float((squares[1:] - squares[0]).mean())

    def _settle(self, score: float, before: float) -> None:
        self.maxima += 1
        if score == -np.inf:
            return
        root = _root(score)
        fresh = max(root, 0.0)
        self._level = fresh if np.isnan(self._level) else self._level + (fresh - self._level) / self.slowness
        if np.isnan(before):  # nothing was known: it is as expected
            before = self._level
        else:
            self._sums += (1.0, root, before, root * before, root * root, before * before)
            self.memory = self._correlation()
        pairs = np.append(self._pairs, [[root, before]], axis=0)
        news = pairs[:, 0] - self.memory * pairs[:, 1]
        order = np.argsort(news, kind="stable")[1:]
        self._pairs, self._news = pairs[order], news[order]

    def _correlation(self) -> float:
        """Slope of roots over the levels before, less its standard error where there is none."""
        count, root, before, product, squares, levels = self._sums
        variance, spread = squares / count - (root / count) ** 2, levels / count - (before / count) ** 2
        if not (variance > 0 and spread > LEAST_SPREAD):
            return 0.0
        slope = (product / count - root * before / count**2) / spread
        return float(np.clip(slope - (variance / spread / count) ** 0.5, 0.0, 1.0))


def _root(score: float) -> float:
    return float(np.sign(score) * np.sqrt(abs(score)))


def _squared(root: float) -> float:
    return root * abs(root)
