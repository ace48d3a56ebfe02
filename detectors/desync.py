"""Replicas that should hold the same bits do not."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status
from torchvitals.detectors.gatherings import APART, FOUND, IN_CODE, SHARED, Gatherings, holders
from torchvitals.signals.word_sums import apart

Digests = NDArray[np.int64]
Mask = NDArray[np.bool_]

DIGEST, SUM = "parameter_digest", "parameter_sum"
"""What finds a difference, and what dates it."""
WIRE, WRITTEN = "tripwire_norm", "weights_overwritten"
"""What dates it between two sums as well: gradients that were shared and then changed on one rank, weights that
somebody wrote to on one rank."""


class Desync:
    """Compares exact digests, one row per rank and one entry per tensor, and names what differs first.

    Any difference counts: DDP broadcasts at construction and every rank applies the same update, so healthy
    replicas stay equal to the last bit. Where at least ``jury`` ranks are compared and more than half of them
    agree on what differs, the others are named; two ranks cannot tell who is right, and it is said so.
    ``present`` may say for each tensor which ranks hold it: shards are compared with their replicas only.
    Ranks that train apart and average their weights now and then are well while they do (detectors/gatherings.py).

    Digests come every few steps. Between them ``parameter_sum``, one number for all tensors at every step or
    every second, fourth, ..., tells when the ranks parted: ``first_step`` is the first step at which it differed,
    and ``evidence["agreed_at"]`` the last at which it did not. Where sums are not taken at every step, the step
    between them is known where the gradients that were applied differed from there on, or somebody wrote to the
    weights of some ranks only (``evidence["dated_by"]``). Without such sums ``first_step`` is the first
    compared step that differs, and the cause lies after ``evidence["agreed_until"]`` (``None``: the ranks never
    agreed). Source: parameter equality across replicas found 18 of 20 silent errors together with the like
    relations (TrainCheck, OSDI 2025); the digest is in hooks/digests.py, the sum in hooks/weight_sums.py.

    >>> detector = Desync()
    >>> same = np.arange(12).reshape(1, 12).repeat(4, axis=0)
    >>> for step in range(0, 50):
    ...     rows = same + step
    ...     if step >= 27:
    ...         rows[2, 7] += 1
    ...     read = {"parameter_sum": rows.sum(1, keepdims=True), **({} if step % 10 else {"parameter_digest": rows})}
    ...     for finding in detector.update(Reading(step, 0.0, read, dict.fromkeys(read, np.ones(4, dtype=bool)))):
    ...         print(finding.step, "tensor", finding.subject, "rank", finding.rank, "since", finding.first_step)
    30 tensor 7 rank 2 since 27
    """

    kind: ClassVar[str] = "desync"
    axis: ClassVar[DetectorAxis] = "replica"
    reads: ClassVar[tuple[str, ...]] = (
        SUM,
        DIGEST,
        "hyperparameter_digest",
        FOUND,
        SHARED,
        APART,
        IN_CODE,
        WIRE,
        WRITTEN,
    )

    def __init__(
        self,
        *,
        jury: int = 3,  # with two ranks there is no majority
        listed: int = 20,  # tensors in the evidence: enough to see a pattern, little enough to read
        small: int = 3,  # tensors before the one that differs that may be too small to have a word in the sums
    ) -> None:
        self.jury = jury
        self.small = small
        self.listed = listed
        self.agreed: dict[str, int] = {}
        """Per signal the last step at which all compared ranks were equal."""
        self.parted: int | None = None
        """Since when the sums differ; ``None`` while they agree."""
        self._sums: tuple[NDArray[np.float64], Mask] | None = None
        """What the ranks summed when they parted."""
        self._hint: tuple[int, str] | None = None
        """Where between two sums they parted, and what tells it."""
        self._same_wire = False
        """Whether the gradients applied were the same on all ranks in the last step."""
        self.fired: set[str] = set()
        self.compared = 0
        self.gatherings = Gatherings()
        self._held_back: tuple[int, Digests, Mask, Mask] | None = None
        """The last parameters that differ, while the ranks are still to come together."""
        self._apart: int | None = None
        """The first step whose parameters were held back."""

    def update(self, reading: Reading) -> list[Finding]:
        found = []
        self.gatherings.take(reading)
        self._look_between(reading)
        for name in (SUM, DIGEST, "hyperparameter_digest"):
            if name not in reading.values:
                continue
            rows = reading.values[name]
            held = holders(reading, name)
            number = held.sum(axis=0)
            if not (number >= 2).any():
                continue
            differs = _differing(rows, held) & (number >= 2)
            if name == SUM:
                self._date(reading.step, parted=bool(differs.any()))
                self._sums = None if self.parted is None else self._sums or (rows, held)
                continue
            self.compared = max(self.compared, int(number.max()))
            if not differs.any():
                self.agreed[name] = reading.step
                self._hint = None if name == DIGEST else self._hint
            elif name == DIGEST and name not in self.fired and self.gatherings.awaited(reading.step):
                self._held_back = reading.step, rows, held, differs
                self._apart = reading.step if self._apart is None else self._apart
            elif name not in self.fired:
                self.fired.add(name)
                found.append(self._finding(name, reading.step, rows, held, differs))
        return found

    def conclude(self) -> list[Finding]:
        """Ranks that never came together have had all the time there was; those whose code says how have not."""
        if self._held_back is None or DIGEST in self.fired or self.gatherings.last is not None:
            return []
        if self.gatherings.planned:
            return []
        self.fired.add(DIGEST)
        return [self._finding(DIGEST, *self._held_back)]

    def status(self) -> Status:
        if self.compared < 2:
            return Status("not_checked", "no two ranks sent digests of the same step")
        return Status("alarm" if self.fired else "ok")

    def _date(self, step: int, *, parted: bool) -> None:
        if not parted:
            self.agreed[SUM], self.parted, self._hint = step, None, None
        elif self.parted is None:
            self.parted = step

    def _look_between(self, reading: Reading) -> None:
        """Whether the gradients applied part at this step, or somebody wrote to the weights of some ranks only."""
        if WRITTEN in reading.values and SHARED in reading.values:
            wrote = holders(reading, WRITTEN) & (reading.values[WRITTEN] > 0)
            if self._hint is None and wrote.any() and not np.array_equal(wrote, holders(reading, SHARED)):
                self._hint = reading.step, WRITTEN
        if WIRE not in reading.values:
            return
        rows, held = reading.values[WIRE], holders(reading, WIRE)
        if not (held.sum(axis=0) >= 2).any() or not np.isfinite(rows[held]).all():
            return
        same = not (_differing(rows, held) & (held.sum(axis=0) >= 2)).any()
        if self._same_wire and not same and self._hint is None:
            self._hint = reading.step, WIRE
        self._same_wire = same

    def _dated_by(self, name: str, onset: int) -> str | None:
        """What else than sums and digests told ``onset``."""
        return self._hint[1] if name == DIGEST and self._hint is not None and self._hint[0] == onset else None

    def _onset(self, name: str, step: int) -> int:
        """The first step since the digests last agreed at which the sums differed, or ``step``; or between them."""
        since = -1 if self.agreed.get(name) is None else self.agreed[name]
        if name == DIGEST and self.gatherings.missed is not None:
            return self.gatherings.missed
        if name == DIGEST and self._apart is not None:
            step = self._apart
        if name != DIGEST:
            return step
        first = self.parted if self.parted is not None and since < self.parted <= step else step
        return self._hint[0] if self._hint is not None and since < self._hint[0] <= first else first

    def _agreed_at(self, name: str, onset: int) -> int | None:
        """The last step before ``onset`` at which digests or sums were equal."""
        told = [self.agreed.get(each) for each in (name, SUM if name == DIGEST else name)]
        told.append(self.gatherings.last if name == DIGEST else None)
        return max((step for step in told if step is not None and step < onset), default=None)

    def _finding(self, name: str, step: int, rows: Digests, held: Mask, differs: Mask) -> Finding:
        tensors = np.flatnonzero(differs)
        first = tensors[0]
        ranks = np.flatnonzero(held[:, first])
        # Of the other tensors that differ, those that the same ranks hold: a shard's replicas judge among themselves.
        alike = tensors[(held[:, tensors] == held[:, [first]]).all(axis=0)]
        odd = self._minority(rows[np.ix_(ranks, alike)])
        is_parameter = name == DIGEST
        onset = self._onset(name, step)
        evidence: dict[str, Any] = {
            "what": "parameters" if is_parameter else "hyper-parameters",
            "agreed_until": self.agreed.get(name),
            "agreed_at": self._agreed_at(name, onset),
            "dated_by": self._dated_by(name, onset),
            "tensors": tensors[: self.listed].tolist(),
            "tensors_differing": len(tensors),
            "tensors_compared": int((held.sum(axis=0) >= 2).sum()),
            "ranks_compared": len(ranks),
            "minority": None if odd is None else ranks[odd].tolist(),
            "extent": self._extent(ranks, odd, tensors) if is_parameter else "",
        }
        if odd is None:
            evidence["why_no_rank"] = (
                "two ranks, cannot tell which is right" if len(ranks) < self.jury else "no majority agrees"
            )
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=onset,
            step=step,
            value=float(len(tensors)),
            threshold=0.0,
            subject=int(first) if is_parameter else None,
            name="" if is_parameter else f"hyper-parameter {int(first)}",
            rank=int(ranks[odd[0]]) if odd is not None and len(odd) == 1 else None,
            evidence=evidence,
        )

    def _extent(self, ranks: NDArray[np.int64], odd: NDArray[np.int64] | None, tensors: NDArray[np.int64]) -> str:
        """How much of the one tensor that differs does, told by the sums of two ranks: see signals/word_sums.py."""
        if self._sums is None or len(tensors) != 1:
            return ""
        rows, held = self._sums
        if rows.shape[1] != 1 or not held[ranks, 0].all():
            return ""
        apart_from = ranks[odd[0]] if odd is not None and len(odd) else ranks[-1]
        others = [float(number) for number in rows[ranks, 0] if number != rows[apart_from, 0]]
        last = int(tensors[0]) + 1
        places = range(max(0, last - 1 - self.small), last)
        return apart(others[0], float(rows[apart_from, 0]), places) if others else ""

    def _minority(self, rows: Digests) -> NDArray[np.int64] | None:
        """Positions of the rows that disagree with more than half of all, or ``None`` where there is no such half."""
        if len(rows) < self.jury:
            return None
        _, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        largest = int(counts.argmax())
        if 2 * counts[largest] <= len(rows):
            return None
        return np.flatnonzero(inverse.reshape(-1) != largest)


def _differing(rows: Digests, held: Mask) -> Mask:
    """For each column whether those who hold it differ; NaN differs from everything, itself included.

    >>> _differing(np.array([[1, 5], [1, 6], [9, 7]]), np.array([[True, True], [True, True], [False, False]])).tolist()
    [False, True]
    """
    first = rows[held.argmax(axis=0), np.arange(rows.shape[1])]
    return np.asarray(((rows != first) & held).any(axis=0))
