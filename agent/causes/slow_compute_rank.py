"""One rank computes longer than the others."""

from typing import ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.lateness import last_as_a_rule, late_ranks, whole_job
from torchvitals.detectors.detector import Finding

PLACES = {
    "compute": "in forward and backward or in code right beside them",
    "host": "in its own code between forward, backward and loader",
}


class SlowComputeRank:
    """Speaks from what is left of the lateness when the loader's part is taken off."""

    word: ClassVar[str] = "slow_compute_rank"
    explains: ClassVar[tuple[str, ...]] = ("straggler",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        late = late_ranks(case)
        if not late:
            return None
        finding = late[0]
        phase = str(finding.evidence.get("phase"))
        place = PLACES.get(phase, "outside the data loader")
        clues = [_rest(finding, place), Clue(1.0, last_as_a_rule(finding)), *_batches(case, finding)]
        return Opinion(
            clues=clues,
            title=f"All ranks wait for rank {finding.rank}, which computes longer than the others",
            explanation=(f"{last_as_a_rule(finding).capitalize()}; the time is spent {place}. {whole_job(finding)}"),
            remedy=(
                f"Look for code that only rank {finding.rank} runs (a hook, a check, logging, a profiler), for larger "
                "batches there, and at its device and cores: clocks, throttling, other processes on them."
            ),
            rank=finding.rank,
        )


def _rest(finding: Finding, place: str) -> Clue:
    wait, late = float(finding.evidence["data_excess"]), float(finding.evidence["late_seconds"])
    share = min(1.0, max(0.0, 1 - wait / late)) if late > 0 else 0.0
    return Clue(3.0 * (2 * share - 1), f"{share:.0%} of its lateness is spent {place}")


def _batches(case: Case, finding: Finding) -> list[Clue]:
    """Whether the late rank has more to do."""
    means = {
        rank: float(series.values[-200:].mean())
        for rank in case.history.ranks("batch_items")
        if len((series := case.history.series("batch_items", rank)).values)
    }
    mine = means.pop(finding.rank, None) if finding.rank is not None else None
    if mine is None or not means:
        return []
    others = sum(means.values()) / len(means)
    if mine <= 1.1 * others:
        return []
    return [Clue(1.0, f"its batches hold {mine:.0f} items, the others' {others:.0f}")]
