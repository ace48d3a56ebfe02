"""Recompile storm: torch.compile compiles the same functions again and again, for every new shape or value."""

from typing import ClassVar

import numpy as np
from torchvitals.detectors.block_statistics import Floats, Mask
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.scalars import grown, scalar, single, subjects_of


class RecompileStorm:
    """A function is given up after its last variant, or compiling goes on and takes a good share of the time.

    Some recompilations are healthy: the second shape of an input makes its size a variable, the last batch of an epoch
    is smaller, evaluation has other batches and no gradients. With one shape for each of two sizes in training and in
    evaluation that is four variants of a function. Where torch gives up (8 variants by default) it says so, and from
    then on that function runs without compilation whenever something new comes: slower than if it had never been
    compiled. Where the limit was raised, steps with recompilations are counted, and their time.

    Args:
        steps: with recompilations before it is a storm though nothing was given up; more than two shapes for each of
            training and evaluation, of a few functions, bring about.
        share: of the time since the first of them.

    Each step compiles the model once more, which takes a second, until torch gives up:

    >>> detector = RecompileStorm()
    >>> for step in range(40):
    ...     again = {"recompilations": [1.0], "compile_seconds": [1.0]} if 5 <= step < 13 else {}
    ...     hit = {"recompile_limit_hits": [1.0]} if step == 12 else {}
    ...     for finding in detector.update(Reading.of(step, step_seconds=[1.1 if again else 0.1], **again, **hit)):
    ...         print(finding.step, finding.first_step, finding.value, finding.evidence["gave_up"])
    12 5 8.0 True
    """

    kind: ClassVar[str] = "recompile_storm"
    axis: ClassVar[DetectorAxis] = "rank"
    reads: ClassVar[tuple[str, ...]] = ("recompilations", "recompile_limit_hits", "compile_seconds", "step_seconds")

    def __init__(self, *, steps: int = 16, share: float = 0.2) -> None:
        self.steps, self.share = steps, share
        self._count = np.zeros(0, dtype=np.int32)
        """Steps with recompilations, and how many there were; this and what follows once anybody has had any."""
        self._compiled = np.zeros(0, dtype=np.float32)
        self._first = np.full(0, -1, dtype=np.int32)
        self._waited = np.zeros(0, dtype=np.float32)
        self._lasted = np.zeros(0)
        """Seconds spent in compiling, and in all, since the first of them: many steps of a few milliseconds."""
        self._told = np.zeros(0, dtype=bool)
        self._seen = False
        self._begun = False
        """Whether anybody has recompiled."""

    def update(self, reading: Reading) -> list[Finding]:
        """Take one step."""
        ranks = subjects_of(reading, self.reads)
        if not ranks:
            return []
        self._seen = True
        if not self._begun and "recompilations" not in reading.values:
            return []
        again, sent = scalar(reading, "recompilations", ranks)
        here = sent & (again > 0)
        if not self._begun and not np.count_nonzero(here):
            return []
        self._grow(ranks)
        self._first[here & (self._first < 0)] = reading.step
        self._begun = True
        begun = self._first >= 0
        self._lasted += np.where(begun, self._seconds(reading, "step_seconds", ranks), 0.0)
        if not here.any():
            return []
        self._waited += np.where(here, single(self._seconds(reading, "compile_seconds", ranks)), 0)
        self._compiled += np.where(here, single(again), 0)
        self._count += here
        hits, _ = scalar(reading, "recompile_limit_hits", ranks)
        return self._judge(reading.step, here, gave_up=here & (hits > 0))

    def status(self) -> Status:
        """``not_checked`` only without any step: a job without torch.compile has nothing to recompile."""
        if self._told.any():
            return Status("alarm")
        return Status("ok") if self._seen else Status("not_checked", "no step was seen")

    def _seconds(self, reading: Reading, name: str, ranks: int) -> Floats:
        values, sent = scalar(reading, name, ranks)
        return np.where(sent & (values > 0) & (values < np.inf), values, 0.0)

    def _judge(self, step: int, here: Mask, *, gave_up: Mask) -> list[Finding]:
        goes_on = here & (self._count >= self.steps) & (self._waited > self.share * self._lasted)
        found = np.flatnonzero((gave_up | goes_on) & ~self._told)
        self._told[found] = True
        return [self._finding(step, rank, gave_up=bool(gave_up[rank])) for rank in found.tolist()]

    def _finding(self, step: int, rank: int, *, gave_up: bool) -> Finding:
        return Finding(
            kind=self.kind,
            severity="warning",
            first_step=int(self._first[rank]),
            step=step,
            value=float(self._compiled[rank]),
            threshold=float(self.steps),
            subject=rank,
            evidence={
                "gave_up": gave_up,
                "compile_seconds": float(self._waited[rank]),
                "seconds": float(self._lasted[rank]),
                "steps": int(self._count[rank]),
            },
        )

    def _grow(self, ranks: int) -> None:
        self._count, self._compiled = grown(self._count, ranks), grown(self._compiled, ranks)
        self._first = grown(self._first, ranks, -1)
        self._waited, self._lasted = grown(self._waited, ranks), grown(self._lasted, ranks)
        self._told = grown(self._told, ranks)
