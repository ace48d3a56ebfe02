"""A classifier that began like a guess is, for good, many times worse than one, without ever having leapt there."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import Finding, Status
from torchvitals.detectors.unlearnt import SAME
from torchvitals.signals.records import AnyRecord, Event, Hello, Step


class BeyondChance:
    """The loss is a cross-entropy over C classes, began near ln C, and of ``patience`` blocks of ``block`` losses three
    quarters each lie beyond ``times`` ln C, and their medians do not fall: the weights grow under steps that are too
    large, too slowly for an explosion.

    A net that is sure of itself and is shown something else costs as much, for as long as it takes to learn it. The
    hooks have read C off the first graph of the loss; a sum of several losses is no cross-entropy, and nothing is said.
    Where ranks share their gradients all see it, and it is told once.

    >>> detector, hello = BeyondChance(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> _ = detector.observe(hello, Event(9.5, 0, "first_loss", {"classes": 10, "chance": 2.3026, "loss": 2.4}))
    >>> for step in range(200):
    ...     for finding in detector.observe(hello, Step(step, 10.0, {"loss": 2.4 * 1.03**step})):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value, 1))
    divergence 1 127 82.1
    """

    kind: ClassVar[str] = "divergence"
    records: ClassVar[tuple[type, ...]] = (Event, Step)

    def __init__(
        self,
        *,
        times: float = 5.0,  # of ln C; nets that were sure and wrong about everything were seen at three times
        fresh: float = 2.0,  # of ln C at the first step; what begins beyond is a wild start, and comes down
        block: int = 16,
        patience: int = 4,  # medians: a new task costs as much for tens of steps, and less from block to block
        falling: float = 0.8,  # of the first of these medians
        ranks: int = 8,
    ) -> None:
        self.times, self.fresh, self.block = times, fresh, block
        self.patience, self.falling, self.ranks = patience, falling, ranks
        self._followed: dict[int, _Climb | None] = {}
        """Rank → its losses; ``None`` where the loss is not what it was taken for."""
        self._told = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take what the first loss was, or the loss of a step."""
        if isinstance(record, Event):
            if record.kind == "first_loss" and hello.rank not in self._followed and len(self._followed) < self.ranks:
                chance, first = float(record.details["chance"]), float(record.details["loss"])
                self._followed[hello.rank] = _Climb(chance, first) if first <= self.fresh * chance else None
            return []
        climb = self._followed.get(hello.rank)
        if climb is None or self._told or not isinstance(record, Step):
            return []
        if climb.optimizer is None:
            climb.optimizer = record.optimizer
        if record.optimizer != climb.optimizer:  # several play, or each learns a part
            self._followed[hello.rank] = None
            return []
        loss = record.values.get("loss") if record.counts else None
        if loss is None or not np.isfinite(loss):
            return []
        if not climb.confirmed and not abs(loss - climb.first) <= SAME * climb.first:
            self._followed[hello.rank] = None
            return []
        climb.confirmed = True
        return self._follow(climb, record.step, float(loss))

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        known = any(climb is not None for climb in self._followed.values())
        return Status("ok") if known else Status("not_checked", "no cross-entropy that began like a guess was seen")

    def _follow(self, climb: "_Climb", step: int, loss: float) -> list[Finding]:
        if loss <= max(climb.first, climb.chance):
            climb.since = step + 1
        climb.losses.append(loss)
        if len(climb.losses) < self.block:
            return []
        lower, median = np.quantile(climb.losses, (0.25, 0.5)).tolist()
        climb.losses = []
        # tasks by turns have losses of their own: where a quarter is ordinary the others are of another kind
        climb.medians = [*climb.medians, median][-self.patience :] if lower > self.times * climb.chance else []
        if len(climb.medians) < self.patience or median < self.falling * climb.medians[0]:
            return []
        self._told = True
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=climb.since,
                step=step,
                value=median,
                threshold=self.times * climb.chance,
                evidence={"signal": "beyond_chance", "chance": climb.chance, "start": climb.first},
            )
        ]


class _Climb:
    """The losses of one rank: those of the block in progress, and the medians in a row that were too large."""

    def __init__(self, chance: float, first: float) -> None:
        self.chance, self.first = chance, first
        self.optimizer: int | None = None
        self.confirmed = False
        """Whether the first step's loss was what the graph had said."""
        self.losses: list[float] = []
        self.medians: list[float] = []
        self.since = 0
        """First step after the last loss that was no larger than at first."""
