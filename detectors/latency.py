"""Latency: a service answers more slowly than it did, and stays so."""

from collections import deque
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Hello, Requests, Step, unpack_floats

REFERENCE = 64
"""Blocks of the past that are remembered."""


class Latency:
    """The median request of each of the newest ``blocks`` blocks takes ``factor`` times as long as the usual one.

    Medians do not see the few requests that are always slow. It must also lie ``spread`` times above the slowest block
    so far, so that a service with two kinds of requests is not slow; be ``least_seconds`` more; and last
    ``lasting_seconds`` of answering, by when a neighbour's burst is over. Blocks of requests with ``resized`` times as
    many rows are other requests, and where the service waits for a core ``starved`` of the time the machine is slow and
    not the service: such blocks are passed over; where the system does not count that, those of a machine of which more
    than ``contended`` tasks want each core. What is slow from the first request on is slow by design, for all that is
    known here.

    >>> import numpy as np
    >>> detector, hello = Latency(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> for first in range(0, 1200, 100):
    ...     seconds = np.where(np.arange(first, first + 100) < 700, 0.005, 0.08).astype("<f4").tobytes()
    ...     for finding in detector.observe(hello, Requests(first, 9.5, "Net", seconds)):
    ...         print(finding.kind, finding.name, finding.first_step, finding.step, round(finding.value, 3))
    latency Net 700 831 0.08
    """

    kind: ClassVar[str] = "latency"
    records: ClassVar[tuple[type, ...]] = (Requests, Step)

    def __init__(
        self,
        *,
        block: int = 32,
        warm_up: int = 32,  # requests: lazy initialisation, caches, compilation
        least_blocks: int = 6,
        blocks: int = 4,
        factor: float = 3.0,  # other jobs on the machine make honest requests twice as slow for minutes
        spread: float = 1.5,
        least_seconds: float = 0.002,  # below, timers and schedulers speak
        lasting_seconds: float = 8.0,
        resized: float = 1.5,  # rows
        starved: float = 0.3,  # of the time of the requests
        contended: float = 1.5,  # a machine with all its cores busy is at 1
    ) -> None:
        self.block, self.warm_up, self.least_blocks, self.blocks = block, warm_up, least_blocks, blocks
        self.factor, self.spread, self.least_seconds = factor, spread, least_seconds
        self.lasting_seconds, self.resized = lasting_seconds, resized
        self.starved, self.contended = starved, contended
        self._courses: dict[tuple[int, str], _Course] = {}
        self._crowded: dict[int, bool] = {}
        """Rank → whether others had the cores that it wanted, as last told."""
        self._told = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take a run of requests, or what a step says of the machine."""
        if isinstance(record, Step):
            starved, load = record.values.get("request_starved_ratio"), record.values.get("machine_load")
            if starved is not None:
                self._crowded[hello.rank] = starved > self.starved
            elif load is not None:
                self._crowded[hello.rank] = load > self.contended
            return []
        if not isinstance(record, Requests):
            return []
        course = self._courses.setdefault((hello.rank, record.model), _Course(self.warm_up, self.block))
        seconds = unpack_floats(record.latencies)
        rows = np.frombuffer(record.items, dtype="<i4") if record.items else np.ones(len(seconds), dtype="<i4")
        found = []
        for offset, value in enumerate(seconds.tolist()):
            size = int(rows[offset]) if offset < len(rows) else 1
            if np.isfinite(value) and course.take(record.first + offset, value, size):
                found += self._judge(hello, record.model, course)
        return found

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        known = max((len(course.usual) for course in self._courses.values()), default=-1)
        if known < 0:
            return Status("not_checked", "no requests of a model that is watched were seen")
        return Status("ok" if known >= self.least_blocks else "warming_up")

    def _judge(self, hello: Hello, model: str, course: "_Course") -> list[Finding]:
        """A block is full: ordinary, slow, or of another kind of requests."""
        _, seconds, rows = course.full()
        median, size = float(np.median(seconds)), float(np.median(rows))
        if course.told or self._crowded.get(hello.rank, False):
            return []
        if len(course.usual) >= self.least_blocks:
            usual = float(np.median(course.usual))
            slow = median > max(self.factor * usual, self.spread * max(course.usual), usual + self.least_seconds)
            if slow and size <= self.resized * max(course.sizes):
                if not course.slow:
                    course.onset = course.change((usual * median) ** 0.5)
                course.slow.append(median)
                course.lasted += float(seconds.sum())
                certain = len(course.slow) >= self.blocks and course.lasted >= self.lasting_seconds
                return [self._finding(hello, model, course, usual)] if certain else []
            if slow:
                return []
        course.ordinary(median, size)
        return []

    def _finding(self, hello: Hello, model: str, course: "_Course", usual: float) -> Finding:
        course.told = self._told = True
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=course.onset,
            step=course.last[-1][0],
            value=float(np.median(course.slow)),
            threshold=self.factor * usual,
            name=model,
            rank=hello.rank,
            evidence={"usual": usual},
        )


class _Course:
    """The latencies of one model: of the block in progress, and the medians of those before."""

    def __init__(self, warm_up: int, block: int) -> None:
        self.left, self.block = warm_up, block
        self.newest: list[tuple[int, float, int]] = []
        self.before: list[tuple[int, float, int]] = []
        """The block before the one that is judged, in which what is slow may have begun."""
        self.last: list[tuple[int, float, int]] = []
        self.usual: deque[float] = deque(maxlen=REFERENCE)
        self.sizes: deque[float] = deque(maxlen=REFERENCE)
        self.slow: list[float] = []
        self.lasted = 0.0
        self.onset = 0
        self.told = False

    def take(self, number: int, seconds: float, rows: int) -> bool:
        """Add a request; whether a block is full with it."""
        if self.left > 0:
            self.left -= 1
            return False
        self.newest.append((number, seconds, rows))
        return len(self.newest) == self.block

    def full(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
        """Numbers, seconds and rows of the block, which is over."""
        numbers, seconds, rows = zip(*self.newest, strict=True)
        self.before, self.last, self.newest = self.last, self.newest, []
        return np.array(numbers), np.array(seconds), np.array(rows)

    def change(self, middle: float) -> int:
        """The request from which on they lie above ``middle``, with the fewest on the wrong side."""
        newest = [*self.before, *self.last]
        above = np.array([seconds > middle for _, seconds, _ in newest])
        wrong = [int(np.count_nonzero(above[:at]) + np.count_nonzero(~above[at:])) for at in range(len(above))]
        return newest[int(np.argmin(wrong))][0]

    def ordinary(self, median: float, size: float) -> None:
        """The block was no slow one: whatever had begun is over."""
        self.usual.append(median)
        self.sizes.append(size)
        self.slow, self.lasted = [], 0.0
