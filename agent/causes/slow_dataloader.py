"""The model waits for its data."""

from typing import Any, ClassVar

from torchvitals.agent.added_time import added, dwelling
from torchvitals.agent.case import Case, Clue, Opinion

MOST = 0.6
"""Share of the added time that must be waiting for the loader."""


class SlowDataloader:
    """Speaks from the share of each step that is spent waiting for the loader."""

    word: ClassVar[str] = "slow_dataloader"
    explains: ClassVar[tuple[str, ...]] = ("input_bound", "slowdown")
    prior: ClassVar[float] = 0.2

    def weigh(self, case: Case) -> Opinion | None:
        bound = case.of_kind("input_bound")
        if not bound:
            return _of_what_came_on_top(case)
        finding = bound[0]
        share = float(finding.evidence.get("share", finding.value))
        loader: dict[str, Any] = case.facts.get("loader") or {}
        workers = loader.get("workers")
        clues = [
            Clue(2.5, f"{share:.0%} of each step is spent waiting for the loader from step {finding.first_step} on")
        ]
        if workers == 0:
            clues.append(Clue(1.0, "the loader has no worker processes: it works while the model waits"))
        late = [f.rank for f in case.of_kind("straggler") if f.evidence.get("phase") == "input"]
        if late and {f.rank for f in bound} <= set(late):
            clues.append(Clue(-3.0, f"only rank {late[0]} waits for its loader, and the others for it"))
        return Opinion(
            clues=clues,
            title=f"{share:.0%} of each step is waiting for data",
            explanation=(
                f"From step {finding.first_step} on, {share:.0%} of the step time is the data loader; without the wait "
                f"the job would be up to {float(finding.evidence.get('speedup', 1.0)):.1f} times as fast."
            ),
            remedy=(
                (
                    "Give the DataLoader worker processes (num_workers=2 or more, persistent_workers=True)"
                    if not workers
                    else f"Raise num_workers above {workers} or make an item cheaper to produce"
                )
                + ", decode or cache the data once instead of in every epoch, and set pin_memory for a GPU."
            ),
        )


def _of_what_came_on_top(case: Case) -> Opinion | None:
    """Steps that became slow wait for their data, though not so long as to call the job bound by its input."""
    found = case.of_kind("slowdown")
    if not found or found[0].evidence.get("shape") == "gradual":
        return None
    onset, rank = found[0].first_step, found[0].rank
    total, waits = (added(case.history.series(name, rank), onset) for name in ("step_seconds", "data_seconds"))
    if not total > 0 or waits < MOST * total:
        return None
    clues = [Clue(3.0, f"{min(waits / total, 1.0):.0%} of the added time of a step is spent waiting for the loader")]
    workers = (case.facts.get("loader") or {}).get("workers")
    place = dwelling(case, onset, waits) if workers == 0 else {}
    where = str(place.get("line", ""))
    if workers == 0:
        clues.append(Clue(1.0, "the loader has no worker processes: it works while the model waits"))
    if where:
        clues.append(
            Clue(1.0, f"{place['share']:.0%} of {place['looks']} looks found the job in `{place['code']}` ({where})")
        )
    return Opinion(
        clues=clues,
        title=f"Each step waits {1e3 * waits:.3g} ms longer for its data since step {onset}",
        explanation=(
            f"Since step {onset} each step takes {1e3 * total:.3g} ms longer, and {1e3 * waits:.3g} ms of that it "
            "waits for the data loader; the model takes as long as it did."
        ),
        remedy=(
            f"Look at {where or 'what the data set and collate_fn do'} with the items of step {onset} and later: "
            "longer or larger items, slower storage, work that grows. Prepare them once before the job, or give the "
            "DataLoader "
            f"{'worker processes (num_workers=2)' if not workers else f'more than {workers} workers'}."
        ),
        where=where,
    )
