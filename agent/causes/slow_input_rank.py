"""One rank gets its batches later than the others get theirs."""

from typing import Any, ClassVar

from torchvitals.agent.case import Case, Clue, Opinion
from torchvitals.agent.lateness import last_as_a_rule, late_ranks, whole_job
from torchvitals.detectors.detector import Finding


class SlowInputRank:
    """Speaks from the loader's time on the rank that comes last, against the others'."""

    word: ClassVar[str] = "slow_input_rank"
    explains: ClassVar[tuple[str, ...]] = ("straggler",)
    prior: ClassVar[float] = 0.0

    def weigh(self, case: Case) -> Opinion | None:
        late = late_ranks(case)
        if not late:
            return None
        finding = late[0]
        clues = [_share(finding), Clue(1.0, last_as_a_rule(finding))]
        loader: dict[str, Any] = case.facts.get("loader") or {}
        workers = loader.get("workers")
        wait = float(finding.evidence["data_excess"])
        return Opinion(
            clues=clues,
            title=f"All ranks wait for rank {finding.rank}, whose loader is slower by {1000 * wait:.0f} ms",
            explanation=(
                f"{last_as_a_rule(finding).capitalize()}. Its data loader takes {1000 * wait:.0f} ms longer than the "
                f"others'. {whole_job(finding)}"
            ),
            remedy=(
                f"Look at what rank {finding.rank} reads that the others do not: the storage of its shard, its host's "
                "disk or network, items that are larger or packed more tightly. "
                + (
                    "Worker processes (num_workers=2 or more) would hide part of it."
                    if workers == 0
                    else "Deal the items out anew in each epoch, so that no rank keeps the dear ones."
                )
            ),
            rank=finding.rank,
        )


def _share(finding: Finding) -> Clue:
    wait, late = float(finding.evidence["data_excess"]), float(finding.evidence["late_seconds"])
    share = min(1.0, max(0.0, wait / late)) if late > 0 else 0.0
    text = f"{share:.0%} of its lateness is time in which it waits for its own data loader"
    return Clue(3.0 * (2 * share - 1), text)
