"""One rank makes the others wait, step after step."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown, scalar

Floats = NDArray[np.float64]

LATENESS, SHARING = "arrival_lateness", "collective_seconds"
PHASES = ("step_seconds", "data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds")
STEP = PHASES.index("step_seconds")
LONGEST = 6e4
"""Seconds; more is a broken number."""
REMEMBERED = 2
"""Windows of who was the last: ranks may miss some steps."""
MOST_STEPS = 1 << 14
MOST_WINDOWS = 255
"""Late windows in a row that are counted."""


class Straggler:
    """The same rank comes last to the collectives in most steps, and late enough to matter.

    Judged by the order in which ranks arrive, never by step time, which is equal on all ranks: whoever waits
    takes as long as whoever is waited for. ``arrival_lateness`` is how long after half of the ranks a rank came.
    Uneven but fair work (a long batch now here, now there) makes every rank the last one in its turn. Where
    more tasks want to run than there are cores, the scheduler chooses whom to keep waiting, for seconds on end:
    there a rank must be late by much more.

    Who comes late because it left the last collective late is nobody's straggler: its data reached it late, by a slow
    link, while the sender, whose own buffers took what it had to send, went on (``collective_seconds``; congestion.py).

    What makes the rank late is told by its phases against the others': ``input`` (the loader), ``compute``
    (forward and backward), ``host`` (code between them). Source: lateness from flight-recorder times named the
    slowed rank in 122 of 122 collectives with two ranks and in 120 of 122 with four, where healthy ones were
    last in up to 43 % of them, late by 9 ms.

    >>> detector = Straggler()
    >>> for step in range(300):
    ...     for finding in detector.update(Reading.of(
    ...         step, arrival_lateness=[0, 0.03, 0, -0.001], step_seconds=[0.1] * 4,
    ...         data_seconds=[0.001, 0.029, 0.002, 0.001], forward_seconds=[0.02] * 4,
    ...         backward_seconds=[0.07, 0.04, 0.07, 0.07])):
    ...         print("rank", finding.subject, "since", finding.first_step, "certain at", finding.step,
    ...             finding.evidence["phase"])
    rank 1 since 0 certain at 103 input
    """

    kind: ClassVar[str] = "straggler"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = (LATENESS, *PHASES, "machine_load", SHARING)

    def __init__(
        self,
        *,
        warm_up: int = 8,  # first steps: caches, autotuning, workers that start
        window: int = 32,  # steps: by chance one of two equal ranks is last in 24 of them once in 280 windows
        windows: int = 3,  # in a row, which chance does once in 20 million; a fair turn is over by then
        last: float = 0.5,  # share of a window's steps in which it is the last, and half of what chance gives it:
        # 24 of 32 with two ranks, 20 with four
        share: float = 0.1,  # of the step that its lateness takes in half of the steps: a job gains that much at most
        seconds: float = 0.005,  # and this long: below, timers, schedulers and the reading of them speak
        contended: float = 1.5,  # runnable tasks by core; a job with all its cores busy is at 1
        contended_share: float = 0.15,  # of the step there: of 144 windows of four healthy ranks, on two cores that 22
        # tasks wanted, one reached 0.14, and the rank was the last in 0.44 of it
    ) -> None:
        self.warm_up, self.window, self.windows = warm_up, window, windows
        self.last, self.share, self.seconds = last, share, seconds
        self.contended, self.contended_share = contended, contended_share
        self._seen = np.zeros(0, dtype=np.int16)
        """Per rank the steps with an arrival, but for whole windows once there have been many."""
        self._was_last = np.zeros(0, dtype=np.uint8)
        """Per rank in how many steps of the window, and in how many it was late enough to matter."""
        self._was_late = np.zeros(0, dtype=np.uint8)
        self._lasts = np.full(REMEMBERED * window, -1, dtype=np.int32)
        """Who was the last in the newest steps, how late, and how much longer than the others it took for each phase:
        one rank in each step, so that this is no matter of how many there are."""
        self._lateness = np.zeros(REMEMBERED * window)
        self._lengths = np.zeros(REMEMBERED * window)
        """Of these steps."""
        self._excess = np.zeros((REMEMBERED * window, len(PHASES)))
        self._steps = 0
        self._load = np.zeros(0, dtype=np.float16)
        self._first = np.zeros(0, dtype=np.int32)
        """Per rank where the window in progress began."""
        self._row = np.zeros(0, dtype=np.uint8)
        self._since = np.zeros(0, dtype=np.int32)
        """First step of the first of its late windows in a row, while anybody has any."""
        self._began = -1
        self._alarmed = np.zeros(0, dtype=bool)

    def __repr__(self) -> str:
        return f"Straggler(last={self.last}, share={self.share})"

    def update(self, reading: Reading) -> list[Finding]:
        """Take the arrivals of one step."""
        late = reading.values.get(LATENESS)
        if late is None:
            return []
        ranks = len(late)
        self._grow(ranks)
        here = reading.present[LATENESS] & np.isfinite(late)
        if here.sum() < 2:
            return []
        if self._began < 0:
            self._began = reading.step
        self._seen[:ranks][here] += 1
        self._seen[self._seen == MOST_STEPS] -= MOST_STEPS // 2 // self.window * self.window
        here &= self._seen[:ranks] > self.warm_up
        if here.sum() < 2:
            return []
        self._note(reading, np.clip(np.where(here, late, -np.inf), -LONGEST, LONGEST), np.flatnonzero(here))
        full = np.flatnonzero(here & ((self._seen[:ranks] - self.warm_up) % self.window == 0))
        return self._judge(reading.step, full) if len(full) else []

    def status(self) -> Status:
        if self._alarmed.any():
            return Status("alarm")
        if not (self._seen > 0).any():
            return Status("not_checked", "no arrivals at collectives were read: one rank, or no flight recorder")
        needed = self.warm_up + self.window * self.windows
        if self._seen.max() < needed:
            return Status("warming_up", f"{self._seen.max()} of {needed} steps with arrivals")
        return Status("ok")

    def _note(self, reading: Reading, late: Floats, here: NDArray[np.int64]) -> None:
        ranks = len(late)
        slot = (self._seen[here] - self.warm_up - 1) % self.window
        begins = here[slot == 0]
        self._first[begins], self._was_last[begins], self._was_late[begins] = reading.step, 0, 0
        phases = np.stack([scalar(reading, name, ranks)[0][here] for name in PHASES], axis=1)
        # What a step has not done took no time.
        phases = np.where(np.isfinite(phases) & (phases >= 0), np.minimum(phases, LONGEST), 0.0)
        last = int(late[here].argmax())
        others = np.median(np.delete(phases, last, axis=0), axis=0)
        self._was_last[here[last]] += 1
        load = scalar(reading, "machine_load", ranks)[0][here]
        self._load[here] = np.where(np.isfinite(load), np.clip(load, 0.0, LONGEST), self._load[here])
        own = late[here] - np.maximum(np.nan_to_num(_left_late(reading, ranks)[here]), 0.0)
        self._was_late[here] += own > np.maximum(self.seconds, self._share * phases[:, STEP])
        place = self._steps % len(self._lasts)
        self._lasts[place], self._lateness[place], self._lengths[place] = here[last], own[last], phases[last, STEP]
        self._excess[place] = phases[last] - others
        self._steps += 1

    @property
    def _share(self) -> float:
        """Of a step that counts as late; the scheduler of one busy host keeps all ranks of the job waiting."""
        return self.contended_share if self._load.max(initial=0.0) > self.contended else self.share

    def _judge(self, step: int, full: NDArray[np.int64]) -> list[Finding]:
        often = self.last + 0.5 / max(2, len(full))
        slow = (self._was_last[full] / self.window >= often) & (self._was_late[full] >= self.window / 2)
        if np.count_nonzero(slow):
            self._since = grown(self._since, len(self._row))
            begins = full[slow & (self._row[full] == 0)]
            self._since[begins] = self._first[begins]
        self._row[full] = np.where(slow, np.minimum(self._row[full], MOST_WINDOWS - 1) + 1, 0)
        if not self._row.any():
            self._since = self._since[:0].copy()
        certain = full[(self._row[full] >= self.windows) & ~self._alarmed[full]]
        self._alarmed[certain] = True
        return [self._finding(step, int(rank)) for rank in certain]

    def _finding(self, step: int, rank: int) -> Finding:
        newest = np.roll(np.arange(len(self._lasts)), -self._steps)
        mine = newest[self._lasts[newest] == rank][-int(self._was_last[rank]) :]
        excess = dict(zip(PHASES, np.median(self._excess[mine], axis=0).tolist(), strict=True))
        late, usual = float(np.median(self._lateness[mine])), float(np.median(self._lengths[mine]))
        since = int(self._since[rank])
        evidence: dict[str, Any] = {
            "phase": self._phase(excess, late),
            "late_seconds": late,
            "step_seconds": usual,
            "last_share": float(self._was_last[rank] / self.window),
            "data_excess": excess["data_seconds"],
            "forward_excess": excess["forward_seconds"],
            "backward_excess": excess["backward_seconds"],
            "ranks": int((self._seen > 0).sum()),
        }
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=0 if since <= self.window and since <= self._began + self.warm_up else since,
            step=step,
            value=late / usual if usual > 0 else 1.0,
            threshold=self._share,
            subject=rank,
            evidence=evidence,
        )

    def _phase(self, excess: dict[str, float], late: float) -> str:
        """What took so long: half of the lateness lies there.

        The late rank waits for nobody, so its backward, where the others wait for it, is the shorter one: what
        is neither the loader nor the forward nor between them was spent computing in backward.
        """
        measured = ("data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds")
        between = excess["step_seconds"] - sum(excess[name] for name in measured)
        if excess["data_seconds"] >= 0.5 * late:
            return "input"
        return "host" if between >= 0.5 * late else "compute"

    def _grow(self, ranks: int) -> None:
        self._seen, self._was_late = grown(self._seen, ranks), grown(self._was_late, ranks)
        self._load = grown(self._load, ranks)
        self._first, self._row = grown(self._first, ranks), grown(self._row, ranks)
        self._was_last = grown(self._was_last, ranks)
        self._alarmed = grown(self._alarmed, ranks)


def _left_late(reading: Reading, ranks: int) -> Floats:
    """By how much longer than the others each rank was in the last collective; NaN where its optimizer hides it."""
    spent, alone = (scalar(reading, name, ranks)[0] for name in (SHARING, "optimizer_seconds"))
    known = np.flatnonzero(np.isfinite(alone) & (np.abs(spent) < LONGEST))
    found = np.full(ranks, np.nan)
    if len(known) < 2:
        return found
    told = spent[known]
    half = np.sort(told)[(len(told) - 1) // 2]  # as lateness is counted: of two ranks the first
    found[known] = told - half
    return found
