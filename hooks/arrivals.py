"""When this rank came to each collective, as torch's flight recorder has noted it for every backend.

The rank that comes last is the one the others wait for; step times, equal on all ranks, cannot tell. To read the
recorder takes 35 ms of the interpreter when its ring of 2000 is full, and every rank that pauses makes all the
others wait: so all ranks read it at the same steps, which they know without talking.
"""

import json
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch.distributed as dist
from torchvitals.hooks import collectives
from torchvitals.hooks.replica_groups import grouped
from torchvitals.signals.records import Arrivals, pack_integers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torchvitals.hooks.recorder import Recorder

SHARE = 0.001
"""Share of step time that reading the recorder may take."""
DENSEST = 64
"""Steps between two readings at least: fewer tell nothing about who is late as a rule."""
LEAST = 32
"""New collectives worth a reading when the job ends."""
NEW_WEIGHT = 0.5
"""Of the newest step time in a moving average over readings."""

ENTRY = re.compile(
    rb'"collective_seq_id":(\d+)[^{}]*?"is_p2p":false[^{}]*?"process_group":\["([^"]*)"[^{}]*?"time_created_ns":(\d+)'
)
"""An entry as torch 2.13 writes it, keys in alphabetical order: found in a hundredth of the time that JSON takes."""

Created = dict[str, dict[int, int]]
"""Group → number of the collective → nanoseconds."""


class ArrivalTimes:
    """Reads the recorder every so many steps and writes what is new.

    Args:
        recorder: where the records go.
        share: of step time that the readings may take.
        dump: reads the flight recorder; injected for tests.
    """

    def __init__(
        self,
        recorder: "Recorder",
        *,
        share: float = SHARE,
        dump: "Callable[[], bytes] | None" = None,
    ) -> None:
        self.every = DENSEST
        self._recorder = recorder
        self._share = share
        self._dump = dump or _dump
        self._known: dict[str, int] = {}
        """Group → number of the newest collective that was written."""
        self._steps = 0
        self._last = 0.0
        self._step_seconds = 0.0
        self._available = True

    def step(self, step: int) -> None:
        """``step`` has been made; called after each but the first."""
        if step % self.every or not self._available:
            return
        if not grouped():
            return
        began = time.perf_counter()
        self.look()
        if self._last:
            seconds = (began - self._last) / max(1, step - self._steps)
            self._step_seconds += (seconds - self._step_seconds) * (NEW_WEIGHT if self._step_seconds else 1.0)
        self._steps, self._last = step, began
        self._space(time.perf_counter() - began)

    def look(self, *, least: int = 1) -> None:
        """Write the collectives since the last reading, if there are ``least`` of them in a group."""
        found = created(self._dump())
        if found is None:
            self._available = False
            self._recorder.not_checked("straggler", "this torch has no flight recorder, or it is switched off")
            return
        for group, times in found.items():
            new = {number: moment for number, moment in times.items() if number > self._known.get(group, -1)}
            if len(new) < least or len(members := _members(group)) == 1:
                continue
            first, last = min(new), max(new)
            moments = np.array([new.get(number, 0) for number in range(first, last + 1)], dtype=np.int64)
            self._recorder.write(Arrivals(self._recorder.clock(), group, first, pack_integers(moments), members))
            self._known[group] = last

    def close(self) -> None:
        """The job ends: what has not been read yet; torch keeps it although the groups may be gone."""
        if self._available and self._last:
            self.look(least=LEAST)

    def _space(self, cost: float) -> None:
        """How far apart readings must be: powers of two, so that those of the slowest rank are among those of all."""
        wanted = cost / (self._share * self._step_seconds) if self._step_seconds else 0.0
        self.every = DENSEST
        while self.every < wanted:
            self.every *= 2


def created(dump: bytes) -> Created | None:
    """When the collectives of each group were begun; ``None`` where there is no recorder.

    >>> created(b'{"entries": []}')
    {}
    """
    if not dump:
        return None
    found: Created = {}
    for group, number, moment in _entries(dump):
        if moment > 0:
            found.setdefault(group, {})[number] = moment
    return found


def _entries(dump: bytes) -> Iterator[tuple[str, int, int]]:
    matches = ENTRY.findall(dump)
    if len(matches) == dump.count(b'"time_created_ns"') - dump.count(b'"is_p2p":true'):
        yield from ((group.decode(), int(number), int(moment)) for number, group, moment in matches)
        return
    for entry in json.loads(dump).get("entries") or []:  # of another torch, in another order
        if not entry.get("is_p2p") and entry.get("process_group"):
            yield entry["process_group"][0], int(entry["collective_seq_id"]), int(entry["time_created_ns"])


def _dump() -> bytes:
    dump = collectives._dump_function()
    if dump is None:
        return b""
    try:
        return bytes(dump(includeCollectives=True))
    except (RuntimeError, TypeError):  # not initialised, or another signature
        return b""


def _members(group: str) -> list[int]:
    """The ranks of a group, empty for all; a group that is gone may have been all."""
    for name, each in collectives._groups():
        if name == group:
            ranks = dist.get_process_group_ranks(each)
            return [] if len(ranks) == dist.get_world_size() else sorted(ranks)
    return []
