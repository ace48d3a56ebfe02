"""Replicas that should hold the same bits do not."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import DetectorAxis, Finding, Reading, Status

Digests = NDArray[np.int64]


class Desync:
    """Compares exact digests, one row per rank and one entry per tensor, and names what differs first.

    Any difference counts: DDP broadcasts at construction and every rank applies the same update, so healthy
    replicas stay equal to the last bit. Where at least ``jury`` ranks are compared and more than half of them
    agree on what differs, the others are named; two ranks cannot tell who is right, and it is said so.

    ``first_step`` is the first compared step that differs; the cause lies after ``evidence["agreed_until"]``
    (``None``: the ranks never agreed). Source: parameter equality across replicas found 18 of 20 silent errors
    together with the like relations (TrainCheck, OSDI 2025); the digest is in hooks/digests.py.

    >>> detector = Desync()
    >>> same = np.arange(12).reshape(1, 12).repeat(4, axis=0)
    >>> for step in range(0, 50, 10):
    ...     rows = same + step
    ...     if step >= 30:
    ...         rows[2, 7] += 1
    ...     present = {"parameter_digest": np.ones(4, dtype=bool)}
    ...     for finding in detector.update(Reading(step, 0.0, {"parameter_digest": rows}, present)):
    ...         print(finding.step, "tensor", finding.subject, "rank", finding.rank, finding.evidence["agreed_until"])
    30 tensor 7 rank 2 20
    """

    kind: ClassVar[str] = "desync"
    axis: ClassVar[DetectorAxis] = "replica"
    reads: ClassVar[tuple[str, ...]] = ("parameter_digest", "hyperparameter_digest")

    def __init__(
        self,
        *,
        jury: int = 3,  # with two ranks there is no majority
        listed: int = 20,  # tensors in the evidence: enough to see a pattern, little enough to read
    ) -> None:
        self.jury = jury
        self.listed = listed
        self.agreed: dict[str, int] = {}
        """Per signal the last step at which all compared ranks were equal."""
        self.fired: set[str] = set()
        self.compared = 0

    def update(self, reading: Reading) -> list[Finding]:
        found = []
        for name in self.reads:
            if name not in reading.values:
                continue
            ranks = np.flatnonzero(reading.present[name])
            if len(ranks) < 2:
                continue
            self.compared = max(self.compared, len(ranks))
            rows: Digests = reading.values[name][ranks]
            differs = (rows != rows[0]).any(axis=0)
            if not differs.any():
                self.agreed[name] = reading.step
            elif name not in self.fired:
                self.fired.add(name)
                found.append(self._finding(name, reading.step, ranks, rows, differs))
        return found

    def status(self) -> Status:
        if self.compared < 2:
            return Status("not_checked", "no two ranks sent digests of the same step")
        return Status("alarm" if self.fired else "ok")

    def _finding(
        self, name: str, step: int, ranks: NDArray[np.int64], rows: Digests, differs: NDArray[np.bool_]
    ) -> Finding:
        odd = self._minority(rows[:, differs])
        tensors = np.flatnonzero(differs)
        what = "parameters" if name == "parameter_digest" else "hyper-parameters"
        evidence: dict[str, Any] = {
            "what": what,
            "agreed_until": self.agreed.get(name),
            "tensors": tensors[: self.listed].tolist(),
            "tensors_differing": len(tensors),
            "tensors_compared": len(differs),
            "ranks_compared": len(ranks),
            "minority": None if odd is None else ranks[odd].tolist(),
        }
        if odd is None:
            evidence["why_no_rank"] = (
                "two ranks, cannot tell which is right" if len(ranks) < self.jury else "no majority agrees"
            )
        return Finding(
            kind=self.kind,
            severity="critical",
            first_step=step,
            step=step,
            value=float(len(tensors)),
            threshold=0.0,
            subject=int(tensors[0]) if name == "parameter_digest" else None,
            name="" if name == "parameter_digest" else f"hyper-parameter {int(tensors[0])}",
            rank=int(ranks[odd[0]]) if odd is not None and len(odd) == 1 else None,
            evidence=evidence,
        )

    def _minority(self, rows: Digests) -> NDArray[np.int64] | None:
        """Positions of the rows that disagree with more than half of all, or ``None`` where there is no such half."""
        if len(rows) < self.jury:
            return None
        _, inverse, counts = np.unique(rows, axis=0, return_inverse=True, return_counts=True)
        largest = int(counts.argmax())
        if 2 * counts[largest] <= len(rows):
            return None
        return np.flatnonzero(inverse.reshape(-1) != largest)
