"""What all ranks are doing, in one line: most wait, and those that do not are the story."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torchvitals.detectors.job_frames import innermost_own, message_call, own_function, waits_in_collective
from torchvitals.detectors.pulse import AT_REST, Pulse

SHOWN_FRAMES = 12
"""Innermost frames of a group that are told: a training loop and the library calls under it."""
SHOWN_GROUPS = 4
"""Groups in the sentence; the others are counted. All are in the list."""
LOADING = frozenset({"data", "load"})


class Doing(NamedTuple):
    """What one rank does: a verb as one and as several ranks have it, what follows, and where."""

    one: str
    several: str
    rest: str
    where: str
    waits: bool = False


def doing(pulse: Pulse) -> Doing:
    """What a rank that still beats is doing, from its stack and the newest collective it has not finished."""
    where = innermost_own(pulse.stacks)
    if waits_in_collective(pulse.stacks) or pulse.beat.phase == "backward":
        message = message_call(pulse.stacks)
        waiting = f"{message}, a message between two ranks," if message else f"a collective of its {pulse.beat.phase}"
        operation = current_collective(pulse.collectives) or waiting
        return Doing("waits in", "wait in", operation, where, waits=True)
    if worker := next((frames for frames in pulse.workers.values() if innermost_own(frames)), None):
        place = innermost_own(worker)
        return Doing("waits for", "wait for", f"a loader worker that is in {own_function(worker)}, {place}", place)
    if not pulse.stacks:
        return Doing("is in", "are in", f"phase {pulse.beat.phase}", "")
    called = own_function(pulse.stacks) or pulse.stacks[-1].rpartition(" ")[2]
    doing = "waits for data in" if pulse.beat.phase in LOADING else "is in"
    return Doing(
        doing, doing.replace("waits", "wait").replace("is", "are"), f"{called}, {where}" if where else called, where
    )


def silence(seconds: float, seen: Mapping[str, Any]) -> Doing:
    """What a rank is doing that does not beat any more, as far as the launcher could see it from outside."""
    state, cpu = str(seen.get("state", "")), float(seen.get("cpu_seconds") or 0.0)
    if state in ("T", "t"):
        return Doing("is", "are", "stopped (SIGSTOP, a debugger)", "")
    if state == "D":
        return Doing("is", "are", "in the kernel, waiting for a device or a file system", "")
    if state and cpu < AT_REST * float(seen.get("seconds") or 1.0):
        return Doing("is", "are", "frozen: native code holds the interpreter's lock and waits", "")
    if state:
        return Doing("is", "are", "frozen: native code holds the interpreter's lock and computes", "")
    return Doing("has", "have", f"been silent for {seconds:.0f} s", "")


def current_collective(entries: Sequence[Mapping[str, Any]]) -> str:
    """``all_reduce #4181``: the oldest collective that a rank issued and that has not completed.

    >>> current_collective([{"operation": "gloo:all_reduce", "sequence": 7, "retired": True}])
    ''
    >>> current_collective([{"operation": "nccl:all_reduce", "sequence": 8, "retired": False}])
    'all_reduce #8'
    """
    pending = [entry for entry in entries if not entry.get("retired")]
    if not pending:
        return ""
    name = str(pending[0].get("operation") or "a collective").rpartition(":")[2]
    return f"{name} #{pending[0].get('sequence')}"


def grouped(ranks: Mapping[int, Doing], stacks: Mapping[int, Sequence[str]]) -> list[dict[str, Any]]:
    """One entry for all ranks that do the same, the largest first: ranks, doing, where, waits, frames."""
    found: dict[tuple[str, str], list[int]] = {}
    for rank, what in sorted(ranks.items()):
        found.setdefault((what.one, what.rest), []).append(rank)
    groups = []
    for (verb, rest), members in sorted(found.items(), key=lambda item: (-len(item[1]), item[1])):
        first = ranks[members[0]]
        frames = next((list(stacks[rank])[-SHOWN_FRAMES:] for rank in members if stacks.get(rank)), [])
        told = {"ranks": members, "doing": f"{verb} {rest}", "where": first.where, "waits": first.waits}
        groups.append({**told, "frames": frames})
    return groups


def sentence(ranks: Mapping[int, Doing], groups: Sequence[Mapping[str, Any]]) -> str:
    """``7 of 8 ranks wait in all_reduce #4181, rank 3 is in collate_fn, data.py:88``."""
    parts = []
    for group in groups[:SHOWN_GROUPS]:
        members, what = group["ranks"], ranks[group["ranks"][0]]
        if len(members) == 1:
            who = f"rank {members[0]}" if len(ranks) > 1 else "the process"
            parts.append(f"{who} {what.one} {what.rest}")
        else:
            who = f"all {len(ranks)} ranks" if len(members) == len(ranks) else f"{len(members)} of {len(ranks)} ranks"
            parts.append(f"{who} {what.several} {what.rest}")
    if len(groups) > SHOWN_GROUPS:
        parts.append(f"the others in {len(groups) - SHOWN_GROUPS} more places")
    return ", ".join(parts)
