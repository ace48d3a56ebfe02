"""Which collective of which group was the first that the ranks did not issue alike, from their flight records.

Collectives are paired by group and sequence number. A ring that has wrapped begins later: what no rank but one
remembers is not judged. Verdicts have the names that torch's own analyser uses.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from torchvitals.agent.flight_records import Collective, FlightRecord
from torchvitals.agent.ranks import ranks_text
from torchvitals.detectors.job_frames import innermost_own

UNLIKE = frozenset(
    {"gather", "scatter", "all_to_all", "alltoall", "alltoall_base", "all_to_all_single", "ALLTOALL", "ALLTOALL_BASE"}
)
"""Collectives whose sizes may differ between ranks that issue the same one."""
DEFAULT_GROUP = "default_pg"
TOLD_RANKS = 8


class Mismatch(msgspec.Struct, frozen=True):
    """The first collective of a group that is not the same everywhere, or never came to its end.

    ``verdict`` is COLLECTIVE_TYPE_MISMATCH, SIZE_OR_SYNTAX_MISMATCH, COLLECTIVE_DTYPE_MISMATCH, MISSING_RANKS,
    COLLECTIVE_STATE_MISMATCH or UNFINISHED; ``ranks`` are those that differ from most, or are missing.
    """

    verdict: str
    group: str
    description: str
    sequence: int
    ranks: list[int]
    operations: dict[int, str]
    where: dict[int, str]
    last: dict[int, str]
    """Of missing ranks: the last collective they did issue in this group."""
    created: int

    @property
    def proves(self) -> bool:
        """Whether ranks issued different collectives, which no later record can explain."""
        return self.verdict in ("COLLECTIVE_TYPE_MISMATCH", "SIZE_OR_SYNTAX_MISMATCH", "COLLECTIVE_DTYPE_MISMATCH")

    @property
    def sentence(self) -> str:
        """What was found, with the ranks, the number and the lines."""
        group = f"group {self.group}" + (f" ({self.description})" if self.description not in ("", "undefined") else "")
        return f"in {group} collective #{self.sequence} {self._found()}"

    @property
    def title(self) -> str:
        """The same in a few words."""
        who = ranks_text(self.ranks) if self.ranks else "the ranks"
        what = {
            "COLLECTIVE_TYPE_MISMATCH": f"{who} issued another collective than most as #{self.sequence}",
            "SIZE_OR_SYNTAX_MISMATCH": f"{who} issued #{self.sequence} with other sizes than most",
            "COLLECTIVE_DTYPE_MISMATCH": f"{who} issued #{self.sequence} with another dtype than most",
            "MISSING_RANKS": f"{who} never issued collective #{self.sequence}",
            "COLLECTIVE_STATE_MISMATCH": f"{who} did not finish collective #{self.sequence}, the others did",
        }.get(self.verdict, f"all ranks wait in collective #{self.sequence}")
        return what[:1].upper() + what[1:]

    def _found(self) -> str:
        told = ", ".join(
            f"{said} on {ranks_text(ranks)}{_at(where)}" for said, where, ranks in self._alike(self.operations)
        )
        if self.verdict == "MISSING_RANKS":
            last = ", ".join(f"rank {rank}: {said}" for rank, said in sorted(self.last.items())[:TOLD_RANKS])
            before = f"; the last of {'it' if len(self.last) == 1 else 'them'} is {last}" if last else ""
            return f"was issued as {told} and never by {ranks_text(self.ranks)}{before}"
        if self.verdict == "UNFINISHED":
            return f"is {told}: all issued it and none has finished it: network, a slow kernel, or a dead peer"
        if self.verdict == "COLLECTIVE_STATE_MISMATCH":
            return f"is {told}; {ranks_text(self.ranks)} has not finished it, the others have"
        return f"is {told}"

    def _alike(self, operations: Mapping[int, str]) -> Iterator[tuple[str, str, list[int]]]:
        """(operation, where, ranks), most ranks first."""
        found: dict[tuple[str, str], list[int]] = {}
        for rank, said in sorted(operations.items()):
            found.setdefault((said, self.where.get(rank, "")), []).append(rank)
        for (said, where), ranks in sorted(found.items(), key=lambda item: (-len(item[1]), item[1]))[:TOLD_RANKS]:
            yield said, where, ranks


def first_mismatch(records: Mapping[int, FlightRecord]) -> Mismatch | None:
    """The first mismatch of all groups: proof before absence, then by the time at which it was issued.

    ``None`` when all that can be compared is alike and finished.
    """
    found = [m for group in sorted(_groups(records)) if (m := _of_group(group, records)) is not None]
    return min(found, key=lambda m: (not m.proves, m.verdict == "UNFINISHED", m.created, m.group), default=None)


def details(mismatch: Mismatch) -> dict[str, Any]:
    """For a program to read."""
    return {**msgspec.to_builtins(mismatch, str_keys=True), "sentence": mismatch.sentence, "title": mismatch.title}


def _groups(records: Mapping[int, FlightRecord]) -> set[str]:
    return {group for record in records.values() for group in record.groups}


def _of_group(group: str, records: Mapping[int, FlightRecord]) -> Mismatch | None:
    members = _members(group, records)
    issued = {rank: _by_number(records[rank], group) for rank in members if rank in records}
    numbers = [number for found in issued.values() for number in found]
    if not numbers:
        return None
    # A ring that has wrapped begins later than the others; one that never issued anything begins nowhere.
    start = max(min(found) for found in issued.values() if found)
    description = next((d for r in records.values() if (d := r.descriptions.get(group))), "")
    for number in range(start, max(numbers) + 1):
        at = {rank: found[number] for rank, found in issued.items() if number in found}
        behind = [rank for rank, found in issued.items() if number not in found and max(found, default=0) < number]
        verdict, guilty = _compare(at, behind)
        if not verdict and number == max(numbers):
            done = [rank for rank, each in at.items() if each.finished or _completed(records[rank], group) >= number]
            verdict, guilty = _unfinished(at, done)
        if verdict:
            return Mismatch(
                verdict=verdict,
                group=group,
                description=description,
                sequence=number,
                ranks=sorted(guilty),
                operations={rank: _said(each, verdict) for rank, each in at.items()},
                where={rank: innermost_own(each.frames) for rank, each in at.items()},
                last={rank: _last(issued[rank]) for rank in behind},
                created=min((each.created for each in at.values()), default=0),
            )
    return None


def _completed(record: FlightRecord, group: str) -> int:
    return record.completed.get(group, -1)


def _members(group: str, records: Mapping[int, FlightRecord]) -> list[int]:
    """Who belongs to the group: as written down, all for the default group, else whoever issued something in it."""
    told = next((record.members[group] for record in records.values() if record.members.get(group)), None)
    if told is not None:
        return told
    if any(record.descriptions.get(group) == DEFAULT_GROUP for record in records.values()):
        return sorted(records)
    return sorted(rank for rank, record in records.items() if group in record.groups)


def _by_number(record: FlightRecord, group: str) -> dict[int, Collective]:
    """Sequence number → the collective; of several under one number (coalesced) the first."""
    found: dict[int, Collective] = {}
    for each in record.groups.get(group, ()):
        if not each.p2p:
            found.setdefault(each.sequence, each)
    return found


def _compare(at: Mapping[int, Collective], behind: list[int]) -> tuple[str, list[int]]:
    """The verdict on one collective and the ranks that differ; an empty one when all is well."""
    for verdict, shape in (
        ("COLLECTIVE_TYPE_MISMATCH", lambda each: each.operation),
        ("SIZE_OR_SYNTAX_MISMATCH", lambda each: None if each.operation in UNLIKE else repr(each.sizes)),
        ("COLLECTIVE_DTYPE_MISMATCH", lambda each: None if each.operation in UNLIKE else repr(each.dtypes)),
    ):
        shapes = {rank: shape(each) for rank, each in at.items()}
        if len(set(shapes.values())) > 1:
            return verdict, _minority(shapes)
    return ("MISSING_RANKS", behind) if behind else ("", [])


def _unfinished(at: Mapping[int, Collective], done: list[int]) -> tuple[str, list[int]]:
    """The same for the last one: whoever issues the next has finished it, though gloo notes that late."""
    waiting = [rank for rank in at if rank not in done]
    if waiting and done:
        return "COLLECTIVE_STATE_MISMATCH", waiting
    return ("UNFINISHED", []) if waiting else ("", [])


def _minority(shapes: Mapping[int, Any]) -> list[int]:
    """The ranks that differ from most; nobody where there is no majority."""
    (shape, most), *others = Counter(shapes.values()).most_common()
    if others and others[0][1] == most:
        return []
    return [rank for rank, each in shapes.items() if each != shape]


def _said(each: Collective, verdict: str = "") -> str:
    dtypes = f" {', '.join(each.dtypes)}" if verdict == "COLLECTIVE_DTYPE_MISMATCH" else ""
    return f"{each.operation} of {each.sizes}{dtypes}" if each.sizes else each.operation


def _last(found: Mapping[int, Collective]) -> str:
    if not found:
        return "none"
    number = max(found)
    where = innermost_own(found[number].frames)
    return f"{_said(found[number])} #{number}{_at(where)}"


def _at(where: str) -> str:
    return f" at {where}" if where else ""
