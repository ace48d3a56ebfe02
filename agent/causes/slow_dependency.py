"""Something outside the model and the loader takes the time: a tracking call, a write to storage, a lock."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.added_time import added, dwelling
from torchvitals.agent.case import Case, Clue, Opinion

PHASES = ("data_seconds", "forward_seconds", "backward_seconds", "optimizer_seconds")
LOOKS, EVERY = 20, 16
"""Looks on either side at what a service computes, and requests between two of them."""
MOST = 0.6
"""Share of the added time that must lie outside all phases."""


class SlowDependency:
    """Speaks from where the added time of each step went: into no phase that belongs to training."""

    word: ClassVar[str] = "slow_dependency"
    explains: ClassVar[tuple[str, ...]] = ("slowdown", "latency")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        if case.of_kind("latency"):
            return _of_service(case)
        found = case.of_kind("slowdown")
        if not found or found[0].evidence.get("shape") == "gradual":  # a service that answers late does not creep
            return None
        onset = found[0].first_step
        total = added(case.history.series("step_seconds", found[0].rank), onset)
        inside = sum(added(case.history.series(phase, found[0].rank), onset) for phase in PHASES)
        if not total > 0:
            return None
        share = 1 - inside / total
        if share < MOST:
            return None
        milliseconds = 1e3 * (total - inside)
        clues = [
            Clue(3.0, f"{share:.0%} of the added time of a step ({milliseconds:.3g} ms) lies in no phase of training")
        ]
        place = dwelling(case, onset, total - inside)
        where = str(place.get("line", ""))
        if where:
            code, often = place["code"], f"{place['share']:.0%} of {place['looks']}"
            clues.append(Clue(1.0, f"{often} looks found the job in `{code}` ({where}), in `{place['function']}`"))
        return Opinion(
            clues=clues,
            title=f"{milliseconds:.3g} ms a step outside the model since step {onset}",
            explanation=(
                f"Since step {onset} each step takes {1e3 * total:.3g} ms longer, and {share:.0%} of that is neither "
                "loader, forward, backward nor optimizer: the loop's own code computes or waits."
            ),
            remedy=(
                f"Look at {where or 'what the loop calls between the steps'}: logging to a service, writing "
                "checkpoints, metrics, locks. Do it less often, in the background, or with a time limit."
            ),
            where=where,
        )


def _of_service(case: Case) -> Opinion | None:
    """The requests take longer, and the process does not compute more for each."""
    found = case.of_kind("latency")[0]
    onset, usual = found.first_step, float(found.evidence["usual"])
    share = case.history.series("request_cpu_ratio", found.rank)
    before, after = share.before(onset, LOOKS), share.values[share.steps > onset + EVERY][:LOOKS]
    if len(before) < 2 or len(after) < 2 or not found.value > usual:
        return None
    computed = float(np.median(after)) * found.value - float(np.median(before)) * usual
    waited = 1 - max(0.0, computed) / (found.value - usual)
    if waited < MOST:
        return None
    added = 1e3 * (found.value - usual)
    return Opinion(
        clues=[Clue(3.0, f"of the {added:.3g} ms that a request takes longer the process waits {waited:.0%}")],
        title=f"Each request waits {added:.3g} ms longer since request {onset}",
        explanation=(
            f"Since request {onset} a request takes {1e3 * found.value:.3g} ms where {1e3 * usual:.3g} ms were usual, "
            f"and in {waited:.0%} of what was added the process does not compute: the forward waits for something."
        ),
        remedy=(
            "Look at what is called while a request is answered: a feature store, a database, another service, a lock, "
            "a retry. Give it a time limit and a fallback, or fetch before and for several requests at once."
        ),
        where=found.name,
    )
