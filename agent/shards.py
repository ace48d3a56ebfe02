"""Norms of shards put together: each rank of FSDP sends the norm of its part, and the squares add up."""

import math
from collections.abc import Mapping

import msgspec
from torchvitals.signals.records import Step

SHARD = "_shard"


def with_wholes(rows: Mapping[int, Step], ranks: int) -> tuple[dict[int, Step], dict[str, float]]:
    """The records of one step, each with the norm of the whole beside that of its part, and those norms.

    Only where all ``ranks`` sent their part: a sum of some parts is nobody's norm.

    >>> rows = {0: Step(7, 0.0, {"gradient_norm_shard": 3.0}), 1: Step(7, 0.0, {"gradient_norm_shard": 4.0})}
    >>> with_wholes(rows, 2)[1], with_wholes(rows, 3)[1]
    ({'gradient_norm': 5.0}, {})
    """
    names = [str(name) for name in next(iter(rows.values())).values if str(name).endswith(SHARD)] if rows else []
    wholes = {
        name.removesuffix(SHARD): math.hypot(*(row.values[name] for row in rows.values()))
        for name in names
        if len(rows) == ranks
        and all(name in row.values and name.removesuffix(SHARD) not in row.values for row in rows.values())
    }
    if not wholes:
        return dict(rows), {}
    complete = {rank: msgspec.structs.replace(row, values={**wholes, **row.values}) for rank, row in rows.items()}
    return complete, wholes
