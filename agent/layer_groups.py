"""A hundred layers as at most twenty groups: bounded cardinality for metrics, in the model's own order."""

import math
from collections.abc import Sequence

MOST_GROUPS = 20


def layer_groups(entries: Sequence[str], most: int = MOST_GROUPS) -> list[str]:
    """The group of each entry: the longest common depth of module path with at most ``most`` different prefixes.

    When even the outermost names are more than that, neighbours are put together and named by first and last.

    >>> layer_groups(["encoder.0.weight", "encoder.0.bias", "head.weight"])
    ['encoder.0', 'encoder.0', 'head']
    >>> layer_groups(["encoder.0.weight", "encoder.1.weight", "head.weight"], most=2)
    ['encoder', 'encoder', 'head']
    >>> layer_groups(["a.w", "b.w", "c.w", "d.w"], most=2)
    ['a…b', 'a…b', 'c…d', 'c…d']
    """
    modules = [entry.rpartition(".")[0] or entry for entry in entries]
    deepest = max((module.count(".") + 1 for module in modules), default=1)
    for depth in range(deepest, 0, -1):
        groups = [".".join(module.split(".")[:depth]) for module in modules]
        if len(set(groups)) <= most:
            return groups
    outermost = list(dict.fromkeys(module.split(".")[0] for module in modules))
    size = math.ceil(len(outermost) / most)
    names: dict[str, str] = {}
    for start in range(0, len(outermost), size):
        chunk = outermost[start : start + size]
        names |= dict.fromkeys(chunk, chunk[0] if len(chunk) == 1 else f"{chunk[0]}…{chunk[-1]}")
    return [names[module.split(".")[0]] for module in modules]


def group_means(entries: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Group → mean over its entries that have a number; a group in which a value is infinite says so.

    >>> group_means(["a.w", "a.b", "c.w"], [1.0, 3.0, float("nan")])
    {'a': 2.0}
    """
    members: dict[str, list[float]] = {}
    for group, value in zip(layer_groups(entries), values, strict=True):
        if not math.isnan(value):
            members.setdefault(group, []).append(value)
    return {group: sum(numbers) / len(numbers) for group, numbers in members.items()}
