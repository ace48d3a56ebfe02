"""A loss that cannot be below zero is maximised, and grows as it is told to: a turned sign."""

from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Event, Hello, Step


class Maximized:
    """Two keys. The hooks have read off the first graphs of the loss that less of it is more of a squared error, a
    cross-entropy or another loss that is never below zero, and that one optimizer holds all that is trained, so that
    it is no game against somebody who makes it small. And its magnitude *grows*: the median of the newest ``block``
    losses is ``times`` what the first block's was, after having risen in ``rises`` blocks in a row.

    An attack on a frozen model, a critic and a reversed gradient have no such graph or no such optimizer.

    >>> detector, hello = Maximized(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> _ = detector.observe(hello, Event(9.5, 0, "turned_loss", {"function": "mse_loss", "line": "train.py:9"}))
    >>> for step in range(80):
    ...     for finding in detector.observe(hello, Step(step, 10.0, {"loss": -(1.05**step)})):
    ...         print(finding.kind, finding.name, finding.first_step, finding.step, round(finding.value, 1))
    divergence train.py:9 0 31 -3.8
    """

    kind: ClassVar[str] = "divergence"
    records: ClassVar[tuple[type, ...]] = (Event, Step)

    def __init__(
        self,
        *,
        times: float = 3.0,  # batches of one task differ by less
        block: int = 8,
        rises: int = 3,  # one leap is a batch; eight blocks of nothing but noise rise so once in 24
    ) -> None:
        self.times, self.block, self.rises = times, block, rises
        self._turned: dict[int, dict[str, Any]] = {}
        """Rank → what the hooks have read."""
        self._losses: dict[int, deque[float]] = {}
        self._blocks: dict[int, list[float]] = {}
        """Rank → magnitude of the first block, and of the newest ones."""
        self._told = False
        self._seen = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take an event, or the loss of a step."""
        if isinstance(record, Event):
            if record.kind == "turned_loss" and not self._told:
                self._turned.setdefault(hello.rank, dict(record.details))
            return []
        self._seen = True
        if self._told or hello.rank not in self._turned or not isinstance(record, Step) or not record.counts:
            return []
        loss = record.values.get("loss")
        return [] if loss is None or not np.isfinite(loss) else self._follow(hello.rank, record.step, float(loss))

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        return Status("ok") if self._seen else Status("not_checked", "no loss was seen")

    def _follow(self, rank: int, step: int, loss: float) -> list[Finding]:
        newest = self._losses.setdefault(rank, deque(maxlen=self.block))
        newest.append(loss)
        if len(newest) < self.block:
            return []
        middle = float(np.median(newest))
        newest.clear()
        blocks = self._blocks.setdefault(rank, [abs(middle)])
        blocks.append(abs(middle))
        del blocks[1 : -self.rises - 1]
        rising = len(blocks) > self.rises + 1 and bool((np.diff(blocks[1:]) > 0).all())
        if not rising or not abs(middle) >= self.times * blocks[0] > 0:
            return []
        self._told = True
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=0,
                step=step,
                value=middle,
                threshold=float(np.copysign(self.times * blocks[0], middle)),
                name=str(self._turned[rank].get("line", "")),
                rank=rank,
                evidence={"signal": "turned_loss", "start": blocks[0], **self._turned[rank]},
            )
        ]
