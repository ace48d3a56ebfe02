"""Collectives take longer than they did, although all ranks are there."""

from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown, scalar
from torchvitals.detectors.straggler import LATENESS

Floats = NDArray[np.float64]

SHARING = "collective_seconds"
LONGEST = 6e4
"""Seconds; more is a broken number, and float16 ends there."""


class _Step(NamedTuple):
    """What is known of all ranks together."""

    step: int
    time: float
    longest: float
    """What the rank spent that spent most."""
    length: float


class Congestion:
    """What passes from the arrival of the last rank to the end of the collective is the network's, and has grown.

    The *fastest* steps of a window now take longer than the *slowest* usual ones did. A busy machine, a noisy but fair
    network and a neighbour's burst make some collectives slow; a link of less capacity leaves none as fast as before.
    Three windows in a row must say so, for ``lasting_seconds``, and the time must matter for a step.

    Which rank's link it is arrivals do not tell: in a ring each rank waits for every other, and who has sent what its
    own buffers hold leaves early. Who leaves last and by how much is evidence, and no more than that. Time that was
    spent so from the first step on is no fault that can be seen: how much a network owes nobody has said.
    Source: fail-slow links were some two in five of the fail-slow events that Greyhound (ATC 2025) met in small jobs.

    >>> detector = Congestion()
    >>> for step in range(300):
    ...     slow = 0.08 if step >= 160 else 0.0
    ...     for finding in detector.update(Reading.of(step, time=0.2 * step, arrival_lateness=[0.0, 0.0],
    ...             collective_seconds=[0.004 + slow, 0.004], step_seconds=[0.1 + slow] * 2)):
    ...         print("since", finding.first_step, "certain at", finding.step, finding.evidence["leaves_last"])
    since 160 certain at 215 0
    """

    kind: ClassVar[str] = "straggler"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (SHARING, LATENESS, "step_seconds")

    def __init__(
        self,
        *,
        warm_up: int = 8,  # first steps: connections are made, threads start
        window: int = 16,  # steps
        windows: int = 3,  # in a row
        reference: int = 4,  # windows at least that were usual
        remembered: int = 64,  # usual windows
        factor: float = 2.0,  # the fastest now over the slowest then
        share: float = 0.2,  # of a step that it adds: a job gains that much at most
        seconds: float = 0.005,  # and so long: below, timers and schedulers speak
        lasting_seconds: float = 8.0,  # a neighbour's burst is over by then
    ) -> None:
        self.warm_up, self.window, self.windows = warm_up, window, windows
        self.reference, self.remembered = reference, remembered
        self.factor, self.share, self.seconds, self.lasting_seconds = factor, share, seconds, lasting_seconds
        self._seen = 0
        self._steps: list[_Step] = []
        """Of the window in progress."""
        self._spent = np.zeros(0, dtype=np.float32)
        """What each rank spent in them, and in how many."""
        self._told = np.zeros(0, dtype=np.uint8)
        self._usual: list[tuple[float, float]] = []
        """Per usual window its median and high quantile; the newest is not compared with, it may be half slow."""
        self._before: list[_Step] = []
        """The steps of the newest usual window."""
        self._slow: list[tuple[int, float]] = []
        """Where and when each slow window in a row began."""
        self.fired = False

    def update(self, reading: Reading) -> list[Finding]:
        """Take what one step spent in its last collective."""
        sent = reading.values.get(SHARING)
        if sent is None or self.fired or len(sent) < 2:
            return []
        spent, here = scalar(reading, SHARING, len(sent))
        lengths, _ = scalar(reading, "step_seconds", len(sent))
        here = here & (spent >= 0) & (spent < LONGEST)
        if np.count_nonzero(here) < 2:
            return []
        self._seen += 1
        if self._seen <= self.warm_up:
            return []
        known = lengths[np.isfinite(lengths) & (lengths > 0)]
        length = float(known.max()) if len(known) else np.nan
        self._steps.append(_Step(reading.step, reading.time, float(spent[here].max()), length))
        self._spent, self._told = grown(self._spent, len(sent)), grown(self._told, len(sent))
        self._spent[: len(sent)] += np.where(here, spent, 0.0)
        self._told[: len(sent)] += here
        if len(self._steps) < self.window:
            return []
        found = self._judge(self._steps)
        self._steps = []
        self._spent.fill(0.0)
        self._told.fill(0)
        return found

    def status(self) -> Status:
        """Whether there is a usual time to compare with."""
        if self.fired:
            return Status("alarm")
        if not self._seen:
            return Status("not_checked", "no arrivals at collectives were read: one rank, or no flight recorder")
        if len(self._usual) <= self.reference:
            return Status("warming_up", f"{len(self._usual)} of {self.reference} windows of reference")
        return Status("ok")

    def _judge(self, steps: list[_Step]) -> list[Finding]:
        whole = np.array([each.longest for each in steps])
        low, middle, high = (float(each) for each in np.quantile(whole, (0.1, 0.5, 0.9)))
        lengths = np.array([each.length for each in steps])
        length = float(np.median(lengths[np.isfinite(lengths)])) if np.isfinite(lengths).any() else np.inf
        if len(self._usual) <= self.reference or not self._is_slow(low, length):
            self._usual = [*self._usual, (middle, high)][-self.remembered :]
            self._before, self._slow = steps, []
            return []
        self._slow.append((steps[0].step, steps[0].time))
        if len(self._slow) < self.windows or steps[-1].time - self._slow[0][1] < self.lasting_seconds:
            return []
        self.fired = True
        return [self._finding(steps, low, middle, length)]

    @property
    def _reference(self) -> Floats:
        return np.array(self._usual[:-1])

    def _limit(self) -> float:
        """Longer than the slowest usual steps by ``factor``."""
        return self.factor * float(self._reference[:, 1].max())

    def _is_slow(self, low: float, length: float) -> bool:
        added = low - float(np.median(self._reference[:, 0]))
        return low > self._limit() and added > max(self.seconds, self.share * length)

    def _onset(self) -> int:
        """The first of the steps in a row that were slow: it may lie in the window before the first slow one."""
        onset, limit = self._slow[0][0], self._limit()
        for each in reversed(self._before):
            if each.longest <= limit:
                break
            onset = each.step
        return onset

    def _finding(self, steps: list[_Step], low: float, now: float, length: float) -> Finding:
        before = float(np.median(self._reference[:, 0]))
        ranks = np.flatnonzero(self._told)
        by_rank = self._spent[ranks] / self._told[ranks]
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=self._onset(),
            step=steps[-1].step,
            value=low / before if before > 0 else 1.0,
            threshold=self.factor,
            evidence={
                "phase": "communication",
                "seconds_before": before,
                "seconds_now": now,
                "step_seconds": length,
                "ranks": len(ranks),
                "leaves_last": int(ranks[by_rank.argmax()]),
                "leaves_later_seconds": float(by_rank.max() - np.median(np.sort(by_rank)[:-1])),
            },
        )
