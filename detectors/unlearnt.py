"""A classifier that knew its task answers like a guess from one step to the next, and does not learn it again."""

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Event, Hello, Step

SAME = 0.25
"""The step's loss may differ by this share from the cross-entropy in it; else it is made of more, and has no chance."""


class Unlearnt:
    """Three keys. It *knew*: the mean of ``side`` losses was at most ``learnt`` of ln C, what a guess among C classes
    costs. It lost that *at once*: the next ``side`` losses are ``back`` at ln C or above. And it *stays* so: none of
    ``patience`` medians of ``block`` losses is below, nor of as many as it took to learn the first time ``again`` times
    over, and the last ones do not fall.

    What is shown to the net changed at that step: labels that no longer belong to their inputs, inputs without
    content. A new task is above chance only for a moment, since it is learnt; a game between two nets comes to its
    balance step by step. Where another optimizer steps, it is for another net, or several play, and nothing is said.

    The hooks have read C off the first graph of the loss. Of many ranks, which all see the same, the first ``ranks``
    that say so are followed.

    >>> detector, hello = Unlearnt(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> _ = detector.observe(hello, Event(9.5, 0, "first_loss", {"classes": 10, "chance": 2.3026, "loss": 2.4}))
    >>> for step in range(400):
    ...     loss = 2.4 * 0.98 ** min(step, 100) if step < 200 else 2.6
    ...     for finding in detector.observe(hello, Step(step, 10.0, {"loss": loss})):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 1))
    divergence 200 295 2.6
    """

    kind: ClassVar[str] = "divergence"
    records: ClassVar[tuple[type, ...]] = (Event, Step)

    def __init__(
        self,
        *,
        learnt: float = 0.5,  # of ln C; a guess with one class in two left out is at 0.7 to 0.8
        back: float = 0.9,  # classes that are not equally frequent cost a guess less than ln C
        side: int = 4,  # losses before and after: one bad batch is none of this
        block: int = 16,
        patience: int = 6,  # medians: a new task of the same net was below chance again after 20 steps
        again: float = 2.0,
        falling: float = 0.97,  # of the median before the last two; noise of medians of 16 losses is 1 to 2 %
        ranks: int = 8,
    ) -> None:
        self.learnt, self.back, self.side = learnt, back, side
        self.block, self.patience, self.again, self.falling, self.ranks = block, patience, again, falling, ranks
        self._chance: dict[int, tuple[float, float]] = {}
        """Rank → ln C, and the first loss, until the first step has confirmed that it is all there is."""
        self._followed: dict[int, _Course] = {}
        self._told = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take what the first loss was, or the loss of a step."""
        if isinstance(record, Event):
            if record.kind == "first_loss" and len(self._chance) < self.ranks:
                self._chance[hello.rank] = float(record.details["chance"]), float(record.details["loss"])
            return []
        known = self._chance.get(hello.rank)
        if known is None or self._told or not isinstance(record, Step) or not record.counts:
            return []
        loss = record.values.get("loss")
        if loss is None or not np.isfinite(loss):
            return []
        course = self._followed.get(hello.rank)
        if course is None:
            if not abs(loss - known[1]) <= SAME * known[1]:
                del self._chance[hello.rank]
                return []
            course = self._followed[hello.rank] = _Course(2 * self.side, record.optimizer)
        elif record.optimizer != course.optimizer:
            del self._chance[hello.rank]
            return []
        return self._follow(hello.rank, course, known[0], record.step, float(loss))

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        return Status("ok") if self._followed else Status("not_checked", "no cross-entropy was seen")

    def _follow(self, rank: int, course: "_Course", chance: float, step: int, loss: float) -> list[Finding]:
        if course.onset is None:
            course.recent.append((step, loss))
            course.seen += 1
            values = [value for _, value in course.recent]
            if len(values) == 2 * self.side:
                if not course.took and sum(values) < len(values) * self.back * chance:
                    course.took = course.seen
                before, after = sum(values[: self.side]) / self.side, min(values[self.side :])
                if before <= self.learnt * chance and after >= self.back * chance:
                    course.onset, course.before = course.recent[self.side][0], before
                    course.losses, course.medians = values[self.side :], []
            return []
        course.losses.append(loss)
        if len(course.losses) < self.block:
            return []
        course.medians.append(float(np.median(course.losses)))
        course.losses = []
        if course.medians[-1] < self.back * chance:
            course.forget()
            return []
        patience = max(self.patience, self.again * course.took / self.block)
        falls = course.medians[-1] < self.falling * course.medians[-min(3, len(course.medians))]
        return [] if len(course.medians) < patience or falls else [self._finding(rank, course, chance, step)]

    def _finding(self, rank: int, course: "_Course", chance: float, step: int) -> Finding:
        self._told = True
        assert course.onset is not None  # noqa: S101 (asked by the caller)
        evidence: dict[str, Any] = {"signal": "chance", "chance": chance, "level_before": course.before}
        return Finding(
            kind=self.kind,
            severity="error",
            first_step=course.onset,
            step=step,
            value=course.medians[-1],
            threshold=self.back * chance,
            rank=rank,
            evidence=evidence,
        )


class _Course:
    """The newest losses of one rank; and from the step at which it was back at chance on, their medians."""

    def __init__(self, kept: int, optimizer: int) -> None:
        self.optimizer = optimizer
        self.recent: deque[tuple[int, float]] = deque(maxlen=kept)
        self.seen = self.took = 0
        """Losses so far, and those after which it had learnt something."""
        self.onset: int | None = None
        self.before = 0.0
        self.losses: list[float] = []
        self.medians: list[float] = []

    def forget(self) -> None:
        """It is being learnt again."""
        self.recent.clear()
        self.onset, self.losses, self.medians = None, [], []
