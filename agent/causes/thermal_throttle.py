"""The processor is too hot: its clock is held down, and everything takes longer."""

from typing import ClassVar

import numpy as np
from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.history import Series

NOTABLE = 0.05
"""Share of the time from which throttling can be felt; a healthy laptop spends a hundredth so."""
RISEN = 3.0
"""Times its share before the onset, or of the other ranks, from which it explains what is new or is of one rank."""


class ThermalThrottle:
    """Speaks from the time that the kernel says the processor was held down, before and after, here and there."""

    word: ClassVar[str] = "thermal_throttle"
    explains: ClassVar[tuple[str, ...]] = ("slowdown", "straggler")
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        slow = next(iter(case.of_kind("slowdown", "straggler")), None)
        if slow is None:
            return None
        ranks = [slow.rank] if slow.rank is not None else case.history.ranks("throttled_ratio")
        series = [case.history.series("throttled_ratio", rank) for rank in ranks]
        share = max((_usual(each, after=slow.first_step) for each in series), default=0.0)
        yardstick = _elsewhere(case, slow.rank, slow.first_step) if slow.kind == "straggler" else None
        if yardstick is None:
            yardstick = max((_usual(each, before=slow.first_step) for each in series), default=0.0)
        if not share >= max(NOTABLE, RISEN * yardstick):
            return None
        who = f"the processor of rank {slow.rank}" if case.world_size > 1 and slow.rank is not None else "the processor"
        than = "elsewhere" if slow.kind == "straggler" else "before"
        return Opinion(
            clues=[Clue(4.0, f"{who} was throttled by heat for {share:.0%} of the time, and {yardstick:.0%} {than}")],
            title=f"{who[:1].upper()}{who[1:]} is throttled: too hot for {share:.0%} of the time",
            explanation=(
                f"Since step {slow.first_step} the kernel has counted that {who} was held down by heat for {share:.0%} "
                f"of the time ({yardstick:.0%} {than}). Whatever computes there takes longer."
            ),
            remedy=(
                "Take the machine out of the job and look at its cooling: fans, dust, paste, the temperature of the "
                "room, a power limit. `dmesg | grep -i throttled` says which package."
            ),
            rank=slow.rank if case.world_size > 1 else None,
        )


def _usual(series: Series, *, before: int | None = None, after: int | None = None) -> float:
    """The mean share, of the steps ``before`` one or from it on; 0 where nothing was read."""
    steps, values = series.steps, series.values
    chosen = values[steps < before] if before is not None else values[steps >= (after or 0)]
    chosen = chosen[np.isfinite(chosen)]
    return float(chosen.mean()) if len(chosen) else 0.0


def _elsewhere(case: Case, rank: int | None, onset: int) -> float | None:
    """The same on the other ranks, which do not come late; ``None`` where they say nothing."""
    others = [other for other in case.history.ranks("throttled_ratio") if other != rank]
    shares = [_usual(case.history.series("throttled_ratio", other), after=onset) for other in others]
    return float(np.median(shares)) if shares and rank is not None else None
