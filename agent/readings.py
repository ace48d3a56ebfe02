"""Make the arrays that detectors read: rows of ranks at equal steps, and profiles of one rank."""

from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from torchvitals.detectors.detector import Reading
from torchvitals.signals.records import Profile, Step, Window, unpack_floats

MAX_PENDING = 64
"""Steps that wait for a rank that takes another path (a second optimizer only some ranks step)."""


T = TypeVar("T")


class Rows(Generic[T]):
    """Collects one row per rank and step; gives the steps back in order, once every rank is past them."""

    def __init__(self) -> None:
        self._rows: dict[int, dict[int, T]] = {}
        self._last: dict[int, int] = {}
        self._given = -1

    def put(self, step: int, rank: int, row: T) -> None:
        """Take a row; one that comes after its step was given is left out."""
        self._last[rank] = max(step, self._last.get(rank, -1))
        if step > self._given:
            self._rows.setdefault(step, {})[rank] = row

    def ready(self, awaited: Iterable[int]) -> list[tuple[int, dict[int, T]]]:
        """The steps that every awaited rank has reached, oldest first."""
        floor = min((self._last.get(rank, -1) for rank in awaited), default=None)
        due = sorted(step for step in self._rows if floor is None or step <= floor)
        if len(self._rows) - len(due) > MAX_PENDING:
            due = sorted(self._rows)[: len(self._rows) - MAX_PENDING]
        if due:
            self._given = due[-1]
        return [(step, self._rows.pop(step)) for step in due]


def rank_reading(step: int, rows: Mapping[int, Step], ranks: int, names: Iterable[str]) -> Reading:
    """The scalars of one step: for each of ``names`` that anybody sent an array over ``ranks``."""
    known = {rank: row for rank, row in rows.items() if rank < ranks}
    told = {name for row in known.values() for name in row.values}
    sent = [name for name in names if name in told]
    values = np.full((len(sent), ranks), np.nan)
    present = np.zeros((len(sent), ranks), dtype=bool)
    for rank, row in known.items():
        values[:, rank] = [row.values.get(name, np.nan) for name in sent]
        present[:, rank] = [name in row.values for name in sent]
    values.flags.writeable = present.flags.writeable = False
    time = max(row.time for row in rows.values())
    return Reading(step, time, dict(zip(sent, values, strict=True)), dict(zip(sent, present, strict=True)), masked=True)


def replica_reading(step: int, name: str, rows: Mapping[int, tuple[float, NDArray[np.int64]]], ranks: int) -> Reading:
    """Digests of one step as (ranks x tensors), from (time, digests) by rank.

    Ranks that sent none, or another number of tensors than most, are absent: their rows cannot be compared.
    """
    lengths = [len(row) for _, row in rows.values()]
    tensors = max(sorted(set(lengths)), key=lengths.count)
    values = np.zeros((ranks, tensors), dtype=np.int64)
    present = np.zeros(ranks, dtype=bool)
    for rank, (_, row) in rows.items():
        if len(row) == tensors and rank < ranks:
            values[rank] = row
            present[rank] = True
    return Reading(step, max(time for time, _ in rows.values()), {name: values}, {name: present})


def buffer_reading(step: int, rows: Mapping[int, Profile], ranks: int) -> Reading:
    """Running statistics of one step as (ranks x channels); ranks with other channels than most are absent."""
    lengths = [len(row.values["buffer_mean"]) // 4 for row in rows.values()]
    channels = max(sorted(set(lengths)), key=lengths.count)
    values = {name: np.zeros((ranks, channels)) for name in ("buffer_mean", "buffer_variance", "buffer_layer")}
    present = np.zeros(ranks, dtype=bool)
    for rank, row in rows.items():
        if rank < ranks and values.keys() <= row.values.keys() and len(row.values["buffer_mean"]) // 4 == channels:
            present[rank] = True
            for name, table in values.items():
                table[rank] = unpack_floats(row.values[name])
    return Reading(step, max(row.time for row in rows.values()), values, dict.fromkeys(values, present))


def profile_reading(step: int, time: float, values: Mapping[str, NDArray[np.float64]]) -> Reading:
    """One sampled step of one rank. Norms and shares cannot be negative: a negative entry says *absent*."""
    with np.errstate(invalid="ignore"):
        present = {name: ~(array < 0) for name, array in values.items()}
    return Reading(step, time, values, present)


def window_reading(window: Window) -> Reading:
    """One block of requests along a feature axis; features may be negative, so all are present."""
    values = unpacked(window)
    return Reading(
        window.first, window.time, values, {name: np.ones(len(array), dtype=bool) for name, array in values.items()}
    )


def unpacked(record: Profile | Window) -> dict[str, NDArray[np.float64]]:
    """The arrays of a record by signal name."""
    return {name: unpack_floats(data) for name, data in record.values.items()}
