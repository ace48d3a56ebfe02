"""How far the clocks of hosts are apart, from the job itself: nothing is sent to find out.

Ranks that share gradients leave every step together, whoever came late to it. What their clocks say of that
moment differs by what the clocks are apart; the median over many steps is good to a millisecond or so.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Ends = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Steps, ascending, and when each was left by the clock of its rank, in seconds."""


def offsets(ends: Mapping[int, Ends], hosts: Mapping[int, str]) -> dict[int, float]:
    """Rank → seconds that its clock is ahead of the lowest rank's; ranks of one host share one clock.

    A host none of whose steps the first one made as well gets 0: nothing is known.

    >>> steps = np.arange(50)
    >>> offsets({0: (steps, 10.0 + steps), 1: (steps, 12.5 + steps)}, {0: "a", 1: "b"})
    {0: 0.0, 1: 2.5}
    >>> offsets({0: (steps, 10.0 + steps), 1: (steps, 12.5 + steps)}, {0: "a", 1: "a"})
    {0: 0.0, 1: 0.0}
    """
    if not ends:
        return {}
    reference = min(ends)
    apart: dict[str, list[float]] = {}
    for rank in sorted(ends):
        host = hosts.get(rank, "")
        if host != hosts.get(reference, "") and (median := _apart(ends[reference], ends[rank])) is not None:
            apart.setdefault(host, []).append(median)
    return {rank: float(np.median(apart.get(hosts.get(rank, ""), [0.0]))) for rank in sorted(ends)}


def _apart(first: Ends, second: Ends) -> float | None:
    _, mine, others = np.intersect1d(first[0], second[0], assume_unique=True, return_indices=True)
    return float(np.median(second[1][others] - first[1][mine])) if len(mine) else None
