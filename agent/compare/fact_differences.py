"""What two runs were told, or are, differently: settings, seeds, code, versions, switches, machine, command."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from torchvitals.agent.compare.recorded import Recorded

Group = Literal["model", "setting", "seed", "code", "software", "flag", "machine", "command"]
_SETTINGS = ("optimizers", "scheduler", "scaler", "autocast", "clips", "loader", "distributed")
_MACHINE = ("cpu_instructions", "driver")
_NOT_COMPARED = ("fused", "foreach")
"""Keys whose absence and ``None`` mean the same."""
LONGEST = 300


class FactDifference(msgspec.Struct, frozen=True):
    """One fact that differs; ``None`` where a run has none."""

    group: Group
    what: str
    a: Any
    b: Any


def fact_differences(a: Recorded, b: Recorded) -> list[FactDifference]:
    """Everything that both runs told and that differs, in the order in which it explains things."""
    mine, theirs = dict(_facts(a)), dict(_facts(b))
    told_a, told_b = _sections(mine), _sections(theirs)
    found = []
    for key in dict.fromkeys([*mine, *theirs]):
        group, section, what = key
        if (group, section) not in told_a or (group, section) not in told_b:
            continue  # a run of an older version did not tell
        left, right = mine.get(key), theirs.get(key)
        if left != right:
            found.append(FactDifference(group, what, left, right))
    return found


def untold(a: Recorded, b: Recorded) -> list[str]:
    """Sections that only one of the runs told, which therefore cannot be compared."""
    told_a, told_b = _sections(dict(_facts(a))), _sections(dict(_facts(b)))
    return sorted({section for _, section in told_a ^ told_b if section in ("versions", "flags", "seeds", "code")})


def same_model(a: Recorded, b: Recorded) -> bool:
    """Whether both trained tensors of the same names: otherwise no layer of one is a layer of the other."""
    mine, theirs = a.first, b.first
    axes = [key for key in mine.entries if key.startswith("parameter:") and key in theirs.entries]
    return all(mine.entries[key] == theirs.entries[key] for key in axes)


def _sections(facts: Mapping[tuple[Group, str, str], Any]) -> set[tuple[Group, str]]:
    return {(group, section) for group, section, _ in facts}


def _facts(run: Recorded) -> Iterator[tuple[tuple[Group, str, str], Any]]:
    facts, hello = run.first.facts, run.first.hello
    for key, value in _flat(facts.get("models", []), "model"):
        yield ("model", "models", key), value
    for section in _SETTINGS:
        for key, value in _flat(facts.get(section), section):
            yield ("setting", "settings", key), value
    yield ("setting", "settings", "ranks"), len(run.ranks)
    for number, rank in sorted(run.ranks.items()):
        of = f" on rank {number}" if len(run.ranks) > 1 else ""
        for key, value in _flat(rank.facts.get("seeds", {}), ""):
            yield ("seed", "seeds", f"seed of {key}{of}"), value
    yield from _code(facts.get("code", {}))
    for key, value in facts.get("versions", {}).items():
        yield ("machine" if key in _MACHINE else "software", "versions", key), value
    yield ("software", "hello", "torch"), hello.torch
    yield ("software", "hello", "python"), hello.python
    for key, value in facts.get("flags", {}).items():
        yield ("flag", "flags", key), value
    yield ("machine", "hello", "device"), hello.device
    yield ("machine", "hello", "host"), hello.host
    if run.launcher:
        yield ("command", "command", "command"), " ".join(map(str, run.launcher.get("command", [])))[:LONGEST]
        yield ("command", "command", "working directory"), run.launcher.get("cwd")


def _code(code: Mapping[str, Any]) -> Iterator[tuple[tuple[Group, str, str], Any]]:
    if not code:
        return
    yield ("code", "code", "commit"), code.get("commit")
    for file, digest in code.get("files", {}).items():
        yield ("code", "code", file), digest


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries and lists by dotted name; a list of one is not numbered."""
    if isinstance(value, Mapping):
        for key, inside in value.items():
            if not (key in _NOT_COMPARED and inside is None):
                yield from _flat(inside, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for index, inside in enumerate(value):
            yield from _flat(inside, f"{name}[{index}]" if len(value) > 1 else name)
    elif value is not None:
        yield name, value
