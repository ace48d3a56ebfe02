"""The network between the ranks takes the time: all of them come to a collective, and it does not end.

Known from arrivals alone: what passes between the moment the last rank came and the end of the collective is nobody's
compute and nobody's input. Which link it is cannot be known so: in a ring each rank waits for every other, and gloo
keeps no times of the parts. Time that was always spent there is no fault that can be seen; a change is.
"""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.history import Series
from torchvitals.agent.lateness import late_ranks, slow_network
from torchvitals.detectors.detector import Finding

SHARING, LATENESS = "collective_seconds", "arrival_lateness"
MOST = 0.6
"""Share of the added time that must lie in collectives."""


class SlowCommunication:
    """Speaks from where the added time of each step went: behind the arrival of the last rank."""

    word: ClassVar[str] = "slow_communication"
    explains: ClassVar[tuple[str, ...]] = ("straggler", "slowdown")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        seen = slow_network(case)
        found = [*seen, *case.of_kind("slowdown")]
        if not found or case.world_size < 2 or late_ranks(case):
            return None
        onset = found[0].first_step
        total, sharing = added(case, "step_seconds", onset), added(case, SHARING, onset)
        if not seen and (not total > 0 or not sharing >= MOST * total):
            return None
        late = max(0.0, added(case, LATENESS, onset))
        told = f"{1e3 * sharing:.3g} of {1e3 * total:.3g} ms"
        return Opinion(
            clues=[
                Clue(3.0, f"{told} that a step takes longer pass after all ranks have come to its last collective"),
                *(
                    [_fastest(finding) for finding in seen]
                    or [Clue(0.5 if late < 0.2 * total else -1.0, f"ranks come {1e3 * late:.2g} ms later than before")]
                ),
            ],
            title=f"Collectives take {1e3 * sharing:.3g} ms more of a step since step {onset}",
            explanation=(
                f"Since step {onset} each step takes {1e3 * total:.3g} ms longer. Ranks arrive together, and {told} "
                "pass between the arrival of the last one and the end of the collective: that is the network, or the "
                "threads that drive it, and no rank's own work. Which link it is arrival times cannot tell: each rank "
                "of a ring waits for all others."
            ),
            remedy=(
                "Measure the links between the hosts of this job in pairs (iperf3, or nccl-tests over two hosts at a "
                "time) and look at their error counters; see which jobs share the network since then, and whether the "
                "backend has fallen back to another interface (GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME)."
            ),
        )


def _fastest(finding: Finding) -> Clue:
    evidence = finding.evidence
    return Clue(
        1.0,
        f"the fastest collectives now take {finding.value:.1f} times what usual ones did; rank "
        f"{evidence['leaves_last']} leaves them last, {1e3 * evidence['leaves_later_seconds']:.0f} ms after the others",
    )


def added(case: Case, name: str, onset: int) -> float:
    """By how much the median of a signal grew at ``onset``, on the usual rank; 0 where that is not known."""
    found = [_added(case.history.series(name, rank), onset) for rank in case.history.ranks(name)]
    grown = [each for each in found if each is not None]
    return float(np.median(grown)) if grown else 0.0


def _added(series: Series, onset: int) -> float | None:
    finite = np.isfinite(series.values)
    before, after = series.values[finite & (series.steps < onset)], series.values[finite & (series.steps >= onset)]
    return float(np.median(after) - np.median(before)) if len(before) and len(after) else None
