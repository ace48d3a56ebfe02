"""A loss without a lowest value: it has come down through zero and runs away from there, its gradient with it."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from torchvitals.detectors.detector import Finding, Status
from torchvitals.signals.records import AnyRecord, Hello, Step

GRADIENTS = ("gradient_norm_unclipped", "gradient_norm", "tripwire_norm")


class Runaway:
    """The first ``known`` losses were above zero, all of them; now medians of ``block`` losses lie ``beyond`` times as
    far below zero as the largest of these was above, and each of ``patience`` in a row lies ``growing`` times deeper
    than the one before. The largest gradient is ``steeper`` times that of the start, measured in the same way.

    As with a term of which more is less (a divergence that is subtracted): a minimum would stop it. A likelihood of a
    density goes through zero, too, and on like a logarithm. What a critic or an actor is given goes as deep as returns
    are large, from losses of both signs, and along gradients that stay as they were.

    >>> detector, hello = Runaway(), Hello(run="r", rank=0, world_size=1, pid=7)
    >>> for step in range(200):
    ...     loss = 2.0 - 0.05 * step if step < 50 else -(1.2 ** (step - 50))
    ...     for finding in detector.observe(hello, Step(step, 10.0, {"loss": loss, "gradient_norm": 1 + abs(loss)})):
    ...         print(finding.kind, finding.first_step, finding.step, round(finding.value))
    divergence 40 111 -17298
    """

    kind: ClassVar[str] = "divergence"
    records: ClassVar[tuple[type, ...]] = (Step,)

    def __init__(
        self,
        *,
        known: int = 16,
        block: int = 16,
        beyond: float = 1000.0,  # likelihoods and flows come to a few times their start
        patience: int = 3,
        growing: float = 1.25,  # a block; a likelihood grows by less from the second on
        steeper: float = 30.0,  # critics under weight clipping and actors: below 5
        least: float = 1e-3,  # a loss that starts at 0 has no scale
        ranks: int = 8,
    ) -> None:
        self.known, self.block, self.beyond = known, block, beyond
        self.patience, self.growing, self.steeper, self.least, self.ranks = patience, growing, steeper, least, ranks
        self._followed: dict[tuple[int, int], _Fall] = {}
        self._told = False

    def observe(self, hello: Hello, record: AnyRecord) -> list[Finding]:
        """Take the loss of a step, and its gradient where it was measured."""
        if self._told or not isinstance(record, Step) or not record.counts:
            return []
        key = hello.rank, record.optimizer
        if key not in self._followed and len(self._followed) >= self.ranks:
            return []
        fall = self._followed.setdefault(key, _Fall())
        loss = record.values.get("loss")
        if loss is None or not np.isfinite(loss) or fall.seen < 0:
            return []
        fall.seen += 1
        fall.take(record, self.known)
        if fall.seen <= self.known:
            fall.level = max(fall.level, float(loss))
            fall.seen = fall.seen if loss > 0 else -1  # of both signs: nothing is known of it
            return []
        if loss > 0:
            fall.since = record.step + 1
        fall.losses.append(float(loss))
        return self._judge(hello.rank, fall, record.step) if len(fall.losses) == self.block else []

    def finish(self, gone: Sequence[Hello]) -> list[Finding]:
        """Nothing is held back."""
        del gone
        return []

    def status(self) -> Status:
        if self._told:
            return Status("alarm")
        known = any(fall.seen > self.known for fall in self._followed.values())
        return Status("ok") if known else Status("not_checked", "no loss that began above zero was seen")

    def _judge(self, rank: int, fall: "_Fall", step: int) -> list[Finding]:
        """A block is complete."""
        depth = -float(np.median(fall.losses))
        fall.losses.clear()
        fall.grew = fall.grew + 1 if depth >= self.growing * fall.depth > 0 else 0
        fall.depth = depth
        far = fall.level >= self.least and depth >= self.beyond * fall.level
        if not far or fall.grew < self.patience or not fall.steepened() >= self.steeper:
            return []
        self._told = True
        return [
            Finding(
                kind=self.kind,
                severity="error",
                first_step=fall.since,
                step=step,
                value=-depth,
                threshold=-self.beyond * fall.level,
                rank=rank,
                evidence={"signal": "no_minimum", "start": fall.level, "gradient_grew": fall.steepened()},
            )
        ]


class _Fall:
    """One loss: what it began with, and the blocks since."""

    def __init__(self) -> None:
        self.seen = 0
        """Losses so far; -1 where the first were not all above zero."""
        self.level = 0.0
        """Largest of the first."""
        self.since = 0
        """First step after the last loss above zero."""
        self.losses: list[float] = []
        self.depth = 0.0
        """How far below zero the newest block lies, and how many in a row have grown."""
        self.grew = 0
        self._first: dict[str, float] = {}
        self._largest: dict[str, float] = {}
        """Gradient → its largest at the start, and since."""

    def take(self, record: Step, known: int) -> None:
        """Keep the largest gradients."""
        kept = self._first if self.seen <= known else self._largest
        for name in GRADIENTS:
            if (value := record.values.get(name)) is not None and np.isfinite(value):
                kept[name] = max(kept.get(name, 0.0), float(value))

    def steepened(self) -> float:
        """How many times larger the gradient has become, as far as it was measured in the same way."""
        grown = [self._largest[name] / self._first[name] for name in self._largest if self._first.get(name, 0.0) > 0]
        return max(grown, default=0.0)
