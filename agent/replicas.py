"""Which ranks hold the same tensors, and what they say of them: the readings that compare ranks bit by bit.

A rank tells with each axis of parameters which *replica* of each tensor it holds: the whole of it (an empty
text), a shard (which one), or something nobody else has (``ALONE``). Only equal replicas of equally named
tensors are compared: true replicas under hybrid sharding or beside tensor parallelism, none under plain FSDP.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torchvitals.agent.readings import Rows, replica_reading
from torchvitals.detectors.detector import Reading
from torchvitals.signals.records import ALONE, Axis, Digest, Step, unpack_integers

SUM, FOUND, SHARED, APART = "parameter_sum", "parameter_sum_found", "collectives", "trains_apart"
IN_CODE = "averaging_in_code"
WIRE, WRITTEN = "tripwire_norm", "weights_overwritten"
SUMS = (SUM, FOUND, SHARED, APART, IN_CODE, WIRE, WRITTEN)
"""What each step says of a rank's whole copy: one number each."""

Held = tuple[tuple[str, ...], tuple[str, ...]]
"""Names of the tensors of one rank, and which replica of each it holds."""


class Row(NamedTuple):
    """What one rank said at one step."""

    time: float
    values: NDArray[np.int64]


class Replicas:
    """The digests of one optimizer's parameters, from all ranks of a crew.

    Args:
        ranks: how many there are.

    """

    def __init__(self, ranks: int) -> None:
        self.columns: list[str] = []
        """What is compared: the names of tensors that at least two ranks hold. Grows, never changes."""
        self._ranks = ranks
        self._rows: dict[str, Rows[Row]] = {}
        self._axes: dict[int, Axis] = {}
        self._holders: dict[Held, list[int]] = {}
        self._held: dict[int, Held] = {}
        self._positions: dict[tuple[str, str], int] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def share_work(self) -> bool:
        """Whether all ranks hold whole copies, and so should have batches of their own (under TP they share)."""
        return all("" in told and set(told) <= {"", ALONE} for (_, told), ranks in self._holders.items() if ranks)

    def put(self, rank: int, digest: Digest, axis: Axis | None) -> None:
        """Take a digest of ``rank``."""
        if axis is not None and axis is not self._axes.get(rank):
            self._meet(rank, axis)
        rows = self._rows.setdefault(f"{digest.kind}_digest", Rows())
        rows.put(digest.step, rank, Row(digest.time, unpack_integers(digest.values)))

    def ready(self, awaited: Iterable[int]) -> Iterator[Reading]:
        """The readings that every awaited rank has sent its part of, oldest first."""
        awaited = list(awaited)
        due = [(step, name, rows) for name in sorted(self._rows) for step, rows in self._rows[name].ready(awaited)]
        for step, name, rows in sorted(due, key=lambda item: item[:2]):
            if name == "parameter_digest" and self._held:
                yield self._reading(step, name, rows)
            else:
                yield replica_reading(step, name, rows, self._ranks)

    def sums(self, step: int, rows: Mapping[int, Step]) -> Reading | None:
        """The sums of one step: one column for each set of ranks that hold the same tensors, all of them shared."""
        families = [ranks for (_, told), ranks in self._holders.items() if len(ranks) > 1 and ALONE not in told]
        values = {name: np.zeros((self._ranks, len(families))) for name in SUMS}
        held = {name: np.zeros((self._ranks, len(families)), dtype=bool) for name in SUMS}
        for column, ranks in enumerate(families):
            for rank in [rank for rank in ranks if rank in rows]:
                for name in [name for name in SUMS if name in rows[rank].values]:
                    values[name][rank, column], held[name][rank, column] = rows[rank].values[name], True
        told = [name for name in SUMS if (held[name].sum(axis=0) >= (1 if name == WRITTEN else 2)).any()]
        if not told:
            return None
        time = max(row.time for row in rows.values())
        return Reading(step, time, {name: values[name] for name in told}, {name: held[name] for name in told})

    def _meet(self, rank: int, axis: Axis) -> None:
        """Learn what ``rank`` holds; a rank beyond the world is not compared."""
        self._axes[rank] = axis
        if rank >= self._ranks:
            return
        if (before := self._held.get(rank)) is not None:
            self._holders[before].remove(rank)
            self._counts.subtract(dict.fromkeys(zip(*before, strict=True), 1))
        told = axis.details.get("replicas") or ()
        names = tuple(axis.entries)
        held: Held = (names, tuple(told) if len(told) == len(names) else ("",) * len(names))
        self._held[rank] = held
        self._holders.setdefault(held, []).append(rank)
        for key in dict.fromkeys(zip(*held, strict=True)):
            self._counts[key] += 1
            if self._counts[key] > 1 and key[1] != ALONE and key not in self._positions:
                self._positions[key] = len(self.columns)
                self.columns.append(f"{key[0]} ({key[1]})" if key[1] else key[0])

    def _reading(self, step: int, name: str, rows: Mapping[int, Row]) -> Reading:
        values = np.zeros((self._ranks, len(self.columns)), dtype=np.int64)
        held = np.zeros(values.shape, dtype=bool)
        for (names, told), ranks in self._holders.items():
            pairs = [(i, self._positions.get(key)) for i, key in enumerate(zip(names, told, strict=True))]
            entries = [i for i, column in pairs if column is not None]
            columns = [column for _, column in pairs if column is not None]
            for rank in ranks:
                row = rows.get(rank)
                if row is not None and len(row.values) == len(names):
                    values[rank, columns] = row.values[entries]
                    held[rank, columns] = True
        return Reading(step, max(row.time for row in rows.values()), {name: values}, {name: held})
